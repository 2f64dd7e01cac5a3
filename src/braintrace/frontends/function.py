"""The front end for plain functions `(params, carry, x) -> (carry, out)` on any trees."""

from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from ..cell import said_batch
from ..core._errors import UsageError
from ..core.engine import Rule
from ..learner import FunctionLearner


def compile_model(
    cell: Callable[..., PyTree],
    rule: Rule,
    inputs: tuple[PyTree, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> FunctionLearner:
    """A learner of `cell`; `given` holds `params` and `carry`, and what is said about the batch."""
    if not {"params", "carry"} <= set(given):
        raise UsageError(
            "A function needs its parameters and its carry.",
            got=f"compile({getattr(cell, '__name__', 'cell')}, ...)",
            expected="params=..., carry=...",
            do="pass both, as the function takes them",
        )
    carry, [x] = given["carry"], inputs
    batch = said_batch(given, carry, x)
    return FunctionLearner(cell, rule, given["params"], carry, x, batch=batch, **analysis)
