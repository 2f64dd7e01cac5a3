"""The cases of `braintrace.tasks`."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from braintrace import tasks

from ._options import FLAGS, FROM_ZERO, REALS, SEEDS, WHOLE


def calls_of_tasks() -> Iterator[tuple[str, Any, Any]]:
    lengths = WHOLE
    rates = REALS | {"above": 2.0}
    noise = {"noise": REALS}
    known = {"batch": 2, "seed": 0}
    common = {"batch": lengths, "seed": SEEDS | {"None": None, "negative": -1, "list": [1.5]}}
    yield (
        "tasks.delayed_match_to_sample",
        tasks.delayed_match_to_sample,
        (
            known,
            common
            | noise
            | {
                "delay": FROM_ZERO,
                "stimulus": lengths,
                "response": lengths,
                "channels": lengths | {"one": 1},
            },
        ),
    )
    yield (
        "tasks.evidence_accumulation",
        tasks.evidence_accumulation,
        (
            {**known, "cues": 2, "cue": 2, "slot": 3, "delay": 2, "recall": 2},
            common
            | {
                "cues": lengths,
                "cue": lengths | {"longer than its slot": 9},
                "slot": lengths,
                "delay": FROM_ZERO,
                "recall": lengths,
                "channels": lengths | {"six": 6},
                "rate": rates,
                "background": rates,
                "majority": rates,
            },
        ),
    )
    yield (
        "tasks.copy_memory",
        tasks.copy_memory,
        (known, common | {"symbols": lengths, "length": lengths, "delay": FROM_ZERO}),
    )
    yield (
        "tasks.delayed_xor",
        tasks.delayed_xor,
        (
            known,
            common
            | noise
            | {
                "delay": FROM_ZERO,
                "pulse": lengths,
                "response": lengths,
                "channels": lengths | {"one": 1},
            },
        ),
    )
    yield (
        "tasks.pattern_generation",
        tasks.pattern_generation,
        (
            known,
            common
            | {
                "steps": lengths,
                "channels": lengths,
                "targets": lengths,
                "rate": rates,
                "periods": {
                    "none": (),
                    "zero": (0.0,),
                    "negative": (-1.0,),
                    "string": "x",
                    "number": 3.0,
                },
                "pattern_seed": SEEDS,
            },
        ),
    )
    frames, length, label = np.ones((5, 2)), np.array([2, 3]), np.array([0, 1])
    yield (
        "tasks.pad_sequences",
        tasks.pad_sequences,
        (
            {"frames": frames, "length": length, "label": label},
            {
                "frames": {
                    "fewer": frames[:4],
                    "flat": frames[:, 0],
                    "string": "x",
                    "None": None,
                    "objects": np.full((5, 2), None),
                    "complex": frames * 1j,
                },
                "length": {
                    "fractions": [2.5, 2.5],
                    "negative": [-1, 6],
                    "string": "x",
                    "one": [5],
                    "square": [[2, 3]],
                },
                "label": {
                    "fewer": [0],
                    "fractions": [0.5, 1.0],
                    "string": "x",
                    "strings": ["a", "b"],
                },
                "steps": {"shorter": 2, "fraction": 3.5, "string": "x", "boolean": True},
            },
        ),
    )
    data = tasks.pad_sequences(frames, length, label)
    dealt = lambda **given: list(tasks.minibatches(**given))
    yield (
        "tasks.minibatches",
        dealt,
        (
            {"data": data, "batch_size": 1, "seed": 0},
            {
                "data": {"None": None, "array": frames, "tuple": (1, 2)},
                "batch_size": WHOLE | {"too many": 3},
                "seed": SEEDS | {"negative": -1},
                "epoch": FROM_ZERO,
                "drop_remainder": FLAGS,
            },
        ),
    )
    yield "tasks.japanese_vowels", tasks.japanese_vowels, ({}, {"standardize": FLAGS})
