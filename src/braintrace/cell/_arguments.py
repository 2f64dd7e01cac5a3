"""What every sequence driver asks of its arguments."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, PyTree, Real, Shaped

from ..core._errors import UsageError

#: A tree of arrays with time on axis 0.
Timed = PyTree[Shaped[ArrayLike, "T ..."]]
#: Weights of the losses of a sequence: one for each step, or one for each sample at each step.
Mask = Real[ArrayLike, "T"] | Real[ArrayLike, "T B"] | Bool[ArrayLike, "T"] | Bool[ArrayLike, "T B"]
#: Marks of the samples that are reset before a step.
Reset = Bool[ArrayLike, "T B"]


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
    check_choice("reduction", reduction, ("mean", "sum"))
    if window is not None:
        check_whole("Wrong window.", window, "a whole number of steps, at least 1, or None")
    for target in targets:
        if (length := sequence_length(target)) != steps:
            raise UsageError(
                "The sequences have different lengths.",
                got=f"{steps} inputs and {length} targets",
                expected="one target for each step",
                do="put time on axis 0 of every sequence",
            )


def check_reset(reset: Reset, steps: int, samples: int | None) -> Bool[Array, "T B"]:
    """`reset` as (T, B) booleans."""
    if samples is None:
        raise UsageError(
            "The batch that reset refers to is not known.",
            got="no batch, or axis 0 of the carry, which the cell does not keep apart",
            expected="the number of samples, or their axes",
            do="pass batch_size= or batch_axes= to compile",
        )
    reset = jnp.asarray(reset)
    if reset.shape != (steps, samples):
        raise UsageError(
            "The reset has a wrong shape.",
            got=f"shape {reset.shape}",
            expected=f"shape {(steps, samples)}: time, sample",
            do="mark each step and sample that starts afresh; jnp.broadcast_to repeats one mark "
            "for all samples",
        )
    return reset.astype(bool)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """One of `choices`."""
    if value not in choices:
        expected = " or ".join(map(repr, choices))
        raise UsageError(f"Unknown {name}.", got=repr(value), expected=expected)


def check_whole(problem: str, value: object, expected: str) -> None:
    """A whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(problem, got=repr(value), expected=expected)


def number(value: Any) -> float:
    """`value` as a number; NaN, which is in no range, for what is none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return float(value) if real else math.nan


def fraction(name: str, value: object, *, one: bool = False) -> float:
    """A number in [0, 1), or in [0, 1] with `one`."""
    found = number(value)
    if 0 <= found < 1 or (one and found == 1):
        return found
    expected = f"a number in [0, 1{']' if one else ')'}"
    raise UsageError(f"Invalid {name}.", got=repr(value), expected=expected)
