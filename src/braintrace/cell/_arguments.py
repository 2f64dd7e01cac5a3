"""What every sequence driver asks of its arguments."""

import numbers
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree, Shaped

from ..core._errors import UsageError

#: A tree of arrays with time on axis 0.
Timed = PyTree[Shaped[ArrayLike, "T ..."]]


def sequence_length(xs: Timed) -> int:
    """The size of axis 0 that the arrays of a sequence share."""
    sizes = {jnp.shape(v)[:1] for v in jax.tree.leaves(xs)}
    if len(sizes) != 1 or () in sizes or (0,) in sizes:
        raise UsageError(
            "The sequence has no common time axis.",
            got=f"shapes {[jnp.shape(v) for v in jax.tree.leaves(xs)]}",
            expected="arrays with time on axis 0, of one length and at least one step",
        )
    return sizes.pop()[0]


def check_driver(steps: int, targets: Sequence[Timed], reduction: str, window: int | None) -> None:
    """What every sequence driver asks of its arguments."""
    if reduction not in ("mean", "sum"):
        raise UsageError("Unknown reduction.", got=repr(reduction), expected="'mean' or 'sum'")
    if window is not None and (
        not isinstance(window, int) or isinstance(window, bool) or window < 1
    ):
        raise UsageError(
            "Wrong window.",
            got=repr(window),
            expected="a whole number of steps, at least 1, or None",
        )
    for target in targets:
        if (length := sequence_length(target)) != steps:
            raise UsageError(
                "The sequences have different lengths.",
                got=f"{steps} inputs and {length} targets",
                expected="one target for each step",
                do="put time on axis 0 of every sequence",
            )


def fraction(name: str, value: object, *, one: bool = False) -> float:
    """A number in [0, 1), or in [0, 1] with `one`."""
    number = (
        -1.0 if isinstance(value, bool) or not isinstance(value, numbers.Real) else float(value)
    )
    if 0 <= number < 1 or (one and number == 1):
        return number
    raise UsageError(
        f"Invalid {name}.", got=repr(value), expected=f"a number in [0, 1{']' if one else ')'}"
    )
