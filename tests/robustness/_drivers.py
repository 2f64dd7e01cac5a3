"""The cases of the methods of learners: each argument of each method with each bad value of its
kind.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from . import _bad_values as values
from ._front_ends import FRONT_ENDS, FrontEnd
from ._outcomes import Case

_LOSS = {
    "loss_fn": values.LOSSES,
    "mask": values.MASKS,
    "reset": values.RESETS,
    "window": values.WINDOWS,
    "reduction": values.REDUCTIONS,
    "ys": values.TARGETS,
    "xs": values.INPUTS,
    "y_target": values.NEEDLESS_TARGETS,
    "modulator": values.NEEDLESS_TARGETS,
}

_STEP = {
    "x": values.STEP_INPUTS,
    "y_target": values.NEEDLESS_TARGETS,
    "modulator": values.NEEDLESS_TARGETS,
}

#: For each method its arguments, with the kind of each.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "etrace_grad": _LOSS
    | dict.fromkeys(("has_aux", "return_state", "fidelity", "donate"), values.FLAGS),
    "etrace_fit": _LOSS | {"mode": values.MODES},
    "etrace_fit, every step": {k: v for k, v in _LOSS.items() if k not in ("window", "xs")},
    "check_gradients": {k: v for k, v in _LOSS.items() if k not in ("ys", "xs")},
    "etrace_evolve": {"xs": values.INPUTS, "traces": values.FLAGS, "return_outputs": values.FLAGS},
    "update": _STEP,
    "__call__": _STEP,
    "update_window": {"xs": values.INPUTS, "full": values.FLAGS},
    "value_and_grad": {
        "loss_fn": values.LOSSES,
        "x": values.STEP_INPUTS,
        "reduction": values.REDUCTIONS,
        "has_aux": values.FLAGS,
        "donate": values.FLAGS,
        "y_target": values.NEEDLESS_TARGETS,
        "modulator": values.NEEDLESS_TARGETS,
    },
    "memory_plan": {"T": values.LENGTHS, "window": values.WINDOWS, "return_state": values.FLAGS},
    "init": {"carry": values.CARRIES, "traces": values.FLAGS, "key": values.KEYS},
    "reset_state": {"model": values.FLAGS, "key": values.KEYS},
}

#: What some front ends have beside these.
OF_BRAINSTATE = {
    "etrace_grad": {
        "chunk_size": values.WINDOWS,
        "return_value": values.FLAGS,
        "return_info": values.FLAGS,
        "loss_output": values.REDUCTIONS,
    },
    "etrace_evolve": {"chunk_size": values.WINDOWS},
    "reset_state": {"batch_size": values.BATCH_SIZES},
}


def driver_cases() -> Iterator[Case]:
    for front_end in FRONT_ENDS:
        more = OF_BRAINSTATE if front_end.name.startswith("brainstate") else {}
        for method in front_end.methods:
            for argument, kind in {**ARGUMENTS[method], **more.get(method, {})}.items():
                for label, value in kind.items():
                    yield _case(front_end, method, argument, label, value)
        if front_end.name != "brainstate, mapped":
            signals = {"y_target": values.PROJECTED, "modulator": values.MODULATORS}
            for argument, kind in signals.items():
                for label, value in kind.items():
                    yield _case(front_end, "etrace_grad", argument, label, value, taken=True)


def _case(
    front_end: FrontEnd, method: str, argument: str, label: str, value: Any, taken: bool = False
) -> Case:
    def called(value: Any) -> Any:
        this = front_end.taking[argument] if taken else front_end
        given = {} if value is values.LEFT_OUT else {argument: value}
        if method.endswith("every step"):
            given["mode"] = "O"
        return this.call(method.partition(",")[0], **given)

    name = f"{front_end.name}.{method}, {argument}: {label}{', taken' * taken}"
    this = lambda: front_end.taking[argument] if taken else front_end
    watched, begin = lambda: this().watched(), lambda: this().begin()
    if isinstance(value, values.Right):

        def same(got: Any) -> bool:
            begin()
            return _equal(got, called(value.like))

        return Case(name, lambda: called(value.value), begin=begin, right=same)
    if isinstance(value, values.Refused):
        refusal = value.refusal
        return Case(name, lambda: called(value.value), watched, begin, refuses=refusal)
    return Case(name, lambda: called(value), watched, begin)


def _equal(a: Any, b: Any) -> bool:
    a, b = (jax.tree.leaves(v) for v in (a, b))
    same = lambda x, y: np.allclose(x, y) if hasattr(x, "dtype") else str(x) == str(y)
    return len(a) == len(b) > 0 and all(map(same, a, b))
