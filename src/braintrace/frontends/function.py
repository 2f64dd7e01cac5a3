"""The door for plain functions `(params, carry, x) -> (carry, out)` on any trees."""

from collections.abc import Callable
from typing import Any

from ..core._errors import UsageError, problem
from ..core.engine import Rule
from ..learner import FunctionLearner


def compile_function(
    cell: Callable[..., Any],
    rule: Rule,
    example_inputs: tuple[Any, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> FunctionLearner:
    """A learner of `cell`; `given` holds `params` and `carry`."""
    missing = sorted({"params", "carry"} - set(given))
    if missing:
        raise UsageError(
            problem(
                "A function needs its parameters and its carry.",
                got=f"compile({getattr(cell, '__name__', 'cell')}, ...)",
                expected="params=..., carry=...",
                do="pass both, as the function takes them",
            )
        )
    if len(example_inputs) != 1:
        raise UsageError(
            problem(
                "A function has one input.",
                got=f"{len(example_inputs)} example inputs",
                expected="one, which may be a tree",
                do="pass a tuple of inputs as one",
            )
        )
    return FunctionLearner(
        cell, rule, given["params"], given["carry"], example_inputs[0], **analysis
    )
