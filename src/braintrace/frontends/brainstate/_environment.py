"""What a step reads from `brainstate.environ`: once, when it is compiled."""

from collections.abc import Callable
from typing import Any

import brainstate
import jax
import numpy as np

from ...cell._convert import same_program
from ...core._compat import is_traced
from ...core._errors import UsageError

_OF_JAX = "precision", "platform", "host_device_count"


class Settings:
    """The settings that a step was compiled in, and whether a call may be made in others."""

    def __init__(self, trace: Callable[[], Any]):
        """`trace` makes the step's program in the settings that hold when it is called."""
        self.compiled = brainstate.environ.all()
        self._trace = trace
        self._depends: dict[str, bool] = {}

    def check(self) -> None:
        """No setting that the step depends on may have another value now. One that has ended is no
        contradiction.
        """
        for key, now in brainstate.environ.all().items():
            before = self.compiled.get(key)
            mode = isinstance(now, bool) or not _is_numeric(now)
            if now is before or now is None or key in _OF_JAX or (mode and before is None):
                continue
            if not _same(now, before) and self._depends_on(key, now, before if mode else None):
                raise UsageError(
                    f"The environment's {key!r} is not the one that the model was compiled with.",
                    got=f"{key}={'a traced value' if _traced(now) else now}",
                    expected=f"{key}={before}: the step depends on it",
                    do="call the model itself for an evaluation, or compile a learner in that mode"
                    if mode
                    else f"make it an input: `def update(self, {key}, x)`, with "
                    f"`brainstate.environ.context({key}={key})` inside",
                )

    def _depends_on(self, key: str, now: Any, before: Any) -> bool:
        """Whether the step is another program with another value: `now` beside `before`, or 1
        beside 2 where there is no `before`, for numbers may be traced now.
        """
        if key not in self._depends:
            tried = (_filled(now, 1), _filled(now, 2)) if before is None else (before, now)
            try:
                self._depends[key] = not same_program(*(self._program(key, v) for v in tried))
            except Exception:  # of the user's step: it does not take one of the values
                self._depends[key] = True
        return self._depends[key]

    def _program(self, key: str, value: Any) -> Any:
        with brainstate.environ.context(**{key: value}):
            return self._trace()


def _is_numeric(value: Any) -> bool:
    return all(hasattr(v, "dtype") or isinstance(v, int | float) for v in jax.tree.leaves(value))


def _traced(value: Any) -> bool:
    return any(map(is_traced, jax.tree.leaves(value)))


def _filled(value: Any, number: int) -> Any:
    return jax.tree.map(lambda v: np.full(np.shape(v), number, jax.dtypes.result_type(v)), value)


def _same(first: Any, second: Any) -> bool:
    (a, a_tree), (b, b_tree) = jax.tree.flatten(first), jax.tree.flatten(second)
    if a_tree != b_tree or _traced((a, b)):
        return False
    return all(x is y or np.array_equal(x, y) for x, y in zip(a, b, strict=True))
