"""The cases of `compile` and of algorithms: each option with each bad value of its kind."""

import functools
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

import braintrace

from ._bad_values import Refused
from ._front_ends import FRONT_ENDS, LEFT_OUT, PARAMS, B, Brainstate, FrontEnd, I, N, O, X
from ._outcomes import Case

WHOLE = {
    "zero": 0,
    "negative": -1,
    "fraction": 2.5,
    "string": "x",
    "boolean": True,
    "array": jnp.ones(2, int),
    "list": [3],
}
FROM_ZERO = {k: v for k, v in WHOLE.items() if k != "zero"}
FLAGS = {"string": "yes", "one": 1, "None": None, "array": jnp.ones(2, bool)}
PATTERNS = {"number": 3, "of numbers": [3], "unknown": "nothing*", "empty": []}
AXES = {"no such axis": 5, "fraction": 0.5, "string": "0", "three": (0, 0, 0), "boolean": True}
SEEDS = {"fraction": 1.5, "string": "x", "boolean": True, "list": [1], "floats": jnp.ones(2)}

#: Where a real number, or one of at least 0, is meant.
REALS = {"NaN": np.nan, "string": "x", "None": None, "negative": -1.0, "complex": 1j, "list": [1.0]}

_ANALYSIS = {
    "max_slots": WHOLE,
    "unroll_limit": FROM_ZERO,
    "memory_budget": WHOLE | {"unit": "1 GB"},
    "control_flow": {"string": "convert", "number": 3, "dict": {"cond": "convert"}},
    "trainable": PATTERNS,
    "exclude": {k: v for k, v in PATTERNS.items() if k != "empty"},
    "verbose": {"three": 3, "negative": -1, "string": "x", "None": None, "array": jnp.ones(2)},
    "max_slot": {"a misspelt option": 3},
    "trace_dtypes": {"a misspelt option": jnp.float32},
}
_VMAP = {"vmap": FLAGS}
_BATCH = {
    "batch_size": WHOLE | {"of no array": B + 7},
    "batch_axes": AXES,
    "batch": {"number": 3, "true": True, "string": "None"},
}
CARRIES = {
    "left out": LEFT_OUT,
    "string": "carry",
    "a function": jnp.tanh,
    "objects": np.full((B, N), None),
    "no samples": jnp.zeros((0, N)),
    "no neurons": jnp.zeros((B, 0)),
    "another size": jnp.zeros((B, N + 1)),
    "ragged": [[0.0], [0.0, 1.0]],
}
_OF_NNX = {k: v for k, v in CARRIES.items() if v is not LEFT_OUT}  # it may have no carry
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "function": _ANALYSIS
    | _BATCH
    | {
        "carry": CARRIES,
        "params": {
            "left out": LEFT_OUT,
            "None": None,
            "string": "params",
            "objects": PARAMS | {"w": np.full((I, N), None)},
            "a function": PARAMS | {"w": jnp.tanh},
            "no inputs": PARAMS | {"w": jnp.ones((0, N))},
            "another size": PARAMS | {"w": jnp.ones((I, N + 1))},
        },
        "wrt": {"of others": None},
        "vmap": {"of others": True},
        "seed": {"of others": 0},
        "axis_name": {"of others": "samples"},
    },
    "equinox": _ANALYSIS
    | _BATCH
    | _VMAP
    | {"carry": CARRIES, "call": {"string": "f", "one": 1, "one argument": jnp.tanh}},
    "nnx": _ANALYSIS | _BATCH | _VMAP | {"carry": _OF_NNX, "wrt": {"number": 3, "float": 0.5}},
    "brainstate": _ANALYSIS
    | _VMAP
    | {"batch_size": WHOLE, "seed": SEEDS, "axis_name": {"without vmap": "samples", "list": []}},
}

INPUTS = {
    "more features": jnp.ones((B, I + 1)),
    "no samples": X[0, :0],
    "no features": X[0, :, :0],
    "string": "x",
    "None": None,
    "a function": jnp.tanh,
    "objects": np.full((B, I), None),
    "ragged": [[1.0], [1.0, 2.0]],
    "two inputs": (X[0], X[0]),
}
ALGORITHMS = {
    "misspelt": "d_rtl",
    "number": 3,
    "None": None,
    "a learner": braintrace.FunctionLearner,
    "a function": jnp.tanh,
    "list": ["d_rtrl"],
}
MODELS = {"None": None, "number": 3, "string": "model", "a class": Brainstate, "array": X}

_DTYPES = {"whole": int, "string": "x", "number": 3, "complex": "O", "boolean": bool}
_SCALES = {
    "zero": 0.0,
    "negative": -1.0,
    "NaN": np.nan,
    "infinite": np.inf,
    "string": "1",
    "boolean": True,
    "list": [1.0],
    "array": jnp.ones(2),
    "complex": 1j,
}
_DECAYS = {
    "one": 1.0,
    "negative": -0.1,
    "above": 1.5,
    "NaN": np.nan,
    "string": "0.9",
    "boolean": True,
    "complex": 1j,
    "array": jnp.ones(2),
}
_FINITE = {k: v for k, v in _SCALES.items() if k not in ("zero", "negative")}
_RANKS = _DECAYS | {"zero rank": -3, "three": (0.9, 0.9, 0.9), "a fraction above 1": 2.5}
_LEAKS = {k: v for k, v in _DECAYS.items() if k != "one"}
_CHOICES = {"unknown": "x", "number": 1, "boolean": True, "list": ["A"], "array": jnp.ones(2)}
_MATRICES = {
    "string": "B",
    "number": 1.0,
    "strings": [np.full((N, O), "x")],
    "objects": [np.full((N, O), None)],
    "ragged": [[[1.0], [1.0, 2.0]]],
    "NaN": [np.full((N, O), np.nan)],
    "another shape": [np.ones((N + 1, O + 1))],
    "two": [np.ones((N, O)), np.ones((N, O))],
    "none": [],
    "complex": [np.ones((N, O), complex)],
    "a function": jnp.tanh,
}
_TYPES = {
    "string": "x",
    "number": 1,
    "floats": np.ones(N),
    "matrix": np.zeros((N, N), int),
    "strings": ["a", "b"],
    "none": [],
}
_NEEDED = {"left out": LEFT_OUT}

#: For each algorithm what it needs, and its options with the kind of each.
RULES: dict[str, tuple[dict[str, Any], dict[str, dict[str, Any]]]] = {
    "d_rtrl": (
        {},
        {
            "trace_dtype": _DTYPES,
            "config": {"string": "x", "number": 3},
            "random_feedback_key": SEEDS,
        },
    ),
    "pp_prop": (
        {"decay_or_rank": 0.9},
        {"decay_or_rank": _RANKS | _NEEDED | {"None": None, "zero": 0 - 1}, "trace_dtype": _DTYPES},
    ),
    "ostl_feedforward": ({}, {"decay_or_rank": _DECAYS, "trace_dtype": _DTYPES}),
    "ostl_recurrent": ({}, {"trace_dtype": _DTYPES}),
    "eprop": (
        {"feedback": "random", "random_feedback_key": 0},
        {
            "feedback": _CHOICES,
            "random_feedback_key": SEEDS | _NEEDED,
            "feedback_scale": _SCALES,
            "kappa_filter_decay": _DECAYS | {"unknown": "leak"},
            "firing_rate": {
                "number": 1.0,
                "three": (1.0, 1.0, 1.0),
                "strings": ("a", "b"),
                "negative strength": (0.1, -1.0),
                "NaN": (np.nan, 1.0),
                "infinite": (np.inf, 1.0),
                "None": (None, 1.0),
            },
            "feedback_decay": _DECAYS,
            "feedback_weights": _MATRICES,
            "trace_dtype": _DTYPES,
        },
    ),
    "rtrl": ({}, {"trace_dtype": _DTYPES}),
    "snap": ({}, {"n": WHOLE, "trace_dtype": _DTYPES}),
    "random_rtrl": ({}, {"k": WHOLE, "mask_key": SEEDS, "trace_dtype": _DTYPES}),
    "rflo": (
        {"random_feedback_key": 0},
        {
            "random_feedback_key": SEEDS | _NEEDED,
            "feedback_scale": _SCALES,
            "feedback_weights": _MATRICES,
            "trace_dtype": _DTYPES,
        },
    ),
    "uoro": ({}, {"trace_dtype": _DTYPES}),
    "kf_rtrl": ({}, {"trace_dtype": _DTYPES}),
    "ok_rtrl": ({}, {"rank": WHOLE, "trace_dtype": _DTYPES}),
    "modprop": (
        {"leak": 0.5},
        {
            "mu": _FINITE,
            "taps": WHOLE,
            "leak": _LEAKS | {"None": None, "unknown": "membrane", "none": ()},
            "types": _TYPES,
            "trace_dtype": _DTYPES,
        },
    ),
    "mdgl": (
        {},
        {
            "types": _TYPES,
            "kappa_filter_decay": _DECAYS | {"unknown": "leak"},
            "trace_dtype": _DTYPES,
        },
    ),
    "s_tllr": (
        {"feedback": "random", "random_feedback_key": 0},
        {
            "lambda_pre": _LEAKS,
            "lambda_post": _DECAYS,
            "alpha_pre": _FINITE,
            "alpha_post": _FINITE,
            "feedback": _CHOICES | {"adaptive": "adaptive"},
            "random_feedback_key": SEEDS | _NEEDED,
            "feedback_scale": _SCALES,
            "feedback_weights": _MATRICES,
            "trace_dtype": _DTYPES,
        },
    ),
    "ottt": (
        {"leak": 0.5},
        {
            "leak": _LEAKS | _NEEDED | {"unknown": "membrane", "two": (0.5, 0.5), "none": ()},
            "mode": _CHOICES,
            "bias_trace": FLAGS,
            "trace_dtype": _DTYPES,
        },
    ),
    "otpe": (
        {"leak": 0.5},
        {
            "leak": _DECAYS | _NEEDED | {"model": "model"},
            "mode": _CHOICES,
            "trace_clip_abs": _SCALES,
            "trace_dtype": _DTYPES,
        },
    ),
    "sk_rtrl": ({}, {"rank": FROM_ZERO, "certificate": FLAGS, "trace_dtype": _DTYPES}),
    "instantaneous": ({}, {}),
    "dni": ({}, {"synthesizer": {"string": "linear", "class": object, "None": None, "number": 3}}),
    "etlp": (
        {"feedback_key": 0},
        {
            "B_list": {k: v for k, v in _MATRICES.items() if k != "another shape"}
            | {"another shape": [np.ones((O, N + 1))]},
            "feedback_key": SEEDS | _NEEDED,
            "feedback_scale": _SCALES,
            "event_rate": {"zero": 0.0, "above": 1.5, "NaN": np.nan, "string": "0.1"},
            "voltage_regulariser": {
                "number": 0.1,
                "three": (0.1, 0.1, 0.1),
                "negative": (-0.1, 0.1),
                "of strings": ("a", "b"),
            },
            "voltages": {"number": 3, "of numbers": (1, 2)},
            "trace_dtype": _DTYPES,
        },
    ),
    "decolle": (
        {"readout_key": 0},
        {
            "G_list": {k: v for k, v in _MATRICES.items() if k != "another shape"}
            | {"another shape": [np.ones((N + 1, O))]},
            "readout_key": SEEDS | _NEEDED,
            "readout_scale": _SCALES,
            "local_loss": _CHOICES,
            "trace_dtype": _DTYPES,
        },
    ),
    "sltt": (
        {"k": 2, "steps": 4},
        {"k": WHOLE, "steps": WHOLE, "steps_key": {k: v for k, v in SEEDS.items() if k != "None"}},
    ),
    "three_factor": ({}, {"kappa_filter_decay": _DECAYS, "trace_dtype": _DTYPES}),
    "osttp": (
        {"feedback_key": 0},
        {
            "B_list": {k: v for k, v in _MATRICES.items() if k != "another shape"}
            | {"another shape": [np.ones((O, N + 1))]},
            "target_timing": _CHOICES,
            "feedback_key": SEEDS | _NEEDED,
            "feedback_scale": _SCALES,
            "scope": _CHOICES,
            "trace_dtype": _DTYPES,
        },
    ),
}

_POLICY = {
    "cond": _CHOICES,
    "scan_unroll_limit": FROM_ZERO,
    "while_hidden": _CHOICES,
    "etp_in_control_flow": _CHOICES,
    "scan_descent": _CHOICES,
    "fixpoint_iteration_limit": WHOLE,
}
_CONFIG = {
    "trace_factorization": _CHOICES,
    "temporal_recursion": _CHOICES,
    "recurrence_scope": _CHOICES,
    "learning_signal": _CHOICES,
    "trace_filter": _CHOICES,
    "update_schedule": _CHOICES,
    "decay": _DECAYS,
    "kappa": _DECAYS,
    "sparse_n": WHOLE,
    "window_size": WHOLE,
}
_WITH = {
    "decay": {"temporal_recursion": "scalar_leak"},
    "kappa": {"trace_filter": "kappa"},
    "sparse_n": {"recurrence_scope": "sparse_n"},
    "window_size": {"update_schedule": "window"},
}


def option_cases() -> Iterator[Case]:
    for front_end in FRONT_ENDS[:-1]:
        yield from _of_compile(front_end)
    for rule, (needed, options) in RULES.items():
        for option, kind in options.items():
            for label, value in kind.items():
                given = {**needed, option: value}
                yield _compiled(FRONT_ENDS[0], rule, f"{rule}, {option}: {label}", given)
    yield from _of_classes()
    for option, kind in _POLICY.items():
        for label, value in kind.items():
            yield _made(braintrace.ControlFlowPolicy, f"{option}: {label}", {option: value})
    for option, kind in _CONFIG.items():
        for label, value in kind.items():
            given = {option: value, **_WITH.get(option, {})}
            yield _made(braintrace.ETraceConfig, f"{option}: {label}", given)


def _of_compile(front_end: FrontEnd) -> Iterator[Case]:
    for option, kind in OPTIONS[front_end.name].items():
        for label, value in kind.items():
            yield _compiled(front_end, "d_rtrl", f"{option}: {label}", {option: value})
    for label, value in ALGORITHMS.items():
        yield _compiled(front_end, value, f"algorithm: {label}", {})
    for label, value in INPUTS.items():
        yield _compiled(front_end, "d_rtrl", f"example input: {label}", {}, value)
    name = f"compile, {front_end.name}, no example input"
    compiled = front_end.compiled
    yield Case(name, lambda: braintrace.compile(front_end.model(), "d_rtrl", **compiled))
    if front_end.name == "function":
        for label, value in MODELS.items():
            call = lambda value=value: braintrace.compile(value, "d_rtrl", X[0], **compiled)
            yield Case(f"compile, model: {label}", call)


def _compiled(
    front_end: FrontEnd, algorithm: Any, label: str, options: dict[str, Any], *inputs: Any
) -> Case:
    """A case that leaves the model as it is."""
    model, refusal = functools.cache(front_end.model), None
    for value in (*options.values(), *inputs):
        if isinstance(value, Refused):
            refusal = value.refusal

    def call() -> Any:
        known = {**front_end.compiled, **options}
        given = {k: plain(v) for k, v in known.items() if v is not LEFT_OUT}
        return braintrace.compile(model(), algorithm, *map(plain, inputs or (X[0],)), **given)

    watched = lambda: front_end.values(model())
    return Case(f"compile, {front_end.name}, {label}", call, watched, refuses=refusal)


def plain(value: Any) -> Any:
    """The value of a `Refused`."""
    return value.value if isinstance(value, Refused) else value


def _of_classes() -> Iterator[Case]:
    """The classes of brainstate learners."""
    of_class = {"vjp_method": _CHOICES, "control_flow": _ANALYSIS["control_flow"]}
    of_graph = {
        "max_slots": WHOLE,
        "memory_budget": WHOLE,
        "vmap": FLAGS,
        "axis_name": {"without vmap": "samples"},
        "lanes": WHOLE,
        "max_slot": {"a misspelt option": 3},
    }
    for name, (needed, _) in RULES.items():
        made = braintrace.rules.algorithm_of(name).name
        for option, kind in (
            *of_class.items(),
            ("trace_dtype", _DTYPES),
            ("trace_dtypes", {"a misspelt option": jnp.float32}),
        ):
            for label, value in kind.items():
                given = {**needed, option: value}
                make = lambda made=made, **given: getattr(braintrace, made)(_model(), **given)
                yield _made(make, f"{option}: {label}", given, made)
    for label, value in MODELS.items():
        yield _made(braintrace.D_RTRL, f"model: {label}", {"model": value})
    for option, kind in of_graph.items():
        for label, value in kind.items():
            call = lambda given={option: value}: _graph(given)
            yield Case(f"compile_graph, {option}: {label}", call)
    for label, value in INPUTS.items():
        call = lambda value=value: _graph({}, plain(value))
        refusal = value.refusal if isinstance(value, Refused) else None
        yield Case(f"compile_graph, example input: {label}", call, refuses=refusal)


def _graph(given: dict[str, Any], *inputs: Any) -> Any:
    learner = braintrace.D_RTRL(_model())
    return learner.compile_graph(*(inputs or (X[0],)), **given)


def _model() -> Any:
    model = Brainstate().model()
    model.init_state(B)
    return model


def _made(make: Any, label: str, given: dict[str, Any], name: str = "") -> Case:
    return Case(f"{name or make.__name__}, {label}", lambda: make(**given))
