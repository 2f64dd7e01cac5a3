"""Checks of hyperparameters: each raises when they are given, with what was got and expected."""

import contextlib
import numbers
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PyTree

from ..compat import ETraceConfig
from ..core._errors import UsageError

#: A whole number or a PRNG key, and the hashable form that `seed` gives it.
Seed = int | tuple[int, ...] | jax.Array | None


def trace_dtype(value: DTypeLike | None) -> np.dtype | None:
    """A floating-point dtype, or None."""
    if value is None:
        return None
    with contextlib.suppress(TypeError):
        if jnp.issubdtype(jnp.dtype(value), jnp.inexact):
            return jnp.dtype(value)
    raise UsageError(
        "Invalid trace_dtype.",
        got=repr(value),
        expected="a floating-point dtype, or None",
        do="pass jnp.float32, say",
    )


def decay_or_rank(value: object) -> float:
    """The decay that a decay in [0, 1), or a rank of at least 1, stands for."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if isinstance(value, numbers.Integral) and number >= 1:
            return (number - 1) / (number + 1)
        if 0 <= number < 1:
            return number
    raise UsageError(
        "Invalid decay_or_rank.",
        got=repr(value),
        expected="a decay in [0, 1), or a whole number of at least 1",
        do="pass 0.9, or the rank 19 that stands for it",
    )


def positive(name: str, value: object) -> float:
    """A number above zero."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or value <= 0:
        raise UsageError(f"Invalid {name}.", got=repr(value), expected="a number above 0")
    return float(value)


def one_of(name: str, value: object, choices: tuple[str, ...]) -> str:
    """One of `choices`, in any case."""
    for choice in choices:
        if isinstance(value, str) and value.lower() == choice.lower():
            return choice
    raise UsageError(f"Unknown {name}.", got=repr(value), expected=" or ".join(map(repr, choices)))


def seed(name: str, value: object) -> int | tuple[int, ...] | None:
    """A whole number or a PRNG key as something hashable; None stays None."""
    if value is None:
        return None
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, tuple) and all(isinstance(v, int) for v in value):
        return value  # it has this form already
    if isinstance(value, jax.Array):
        is_key = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        data = jnp.asarray(jax.random.key_data(value) if is_key else value)
        return tuple(int(v) for v in data.reshape(-1))
    raise UsageError(f"Invalid {name}.", got=repr(value), expected="a whole number or a PRNG key")


def matrices(given: Iterable[PyTree] | None) -> tuple[np.ndarray, ...] | None:
    """Feedback matrices as arrays; a `FixedRandomFeedback` stands for its own."""
    return None if given is None else tuple(np.asarray(getattr(b, "B", b)) for b in given)


def drawn_or_given(subject: str, key: Seed, weights: object) -> None:
    """Feedback through matrices B that are drawn with a key, or given."""
    if key is None and weights is None:
        raise UsageError(
            f"{subject} needs to know how to draw B.",
            expected="random_feedback_key",
            do="pass random_feedback_key=0, say, or feedback_weights",
        )


def config(value: object, factored: bool) -> None:
    """None, or an `ETraceConfig` whose traces are stored as the algorithm stores them."""
    if value is None or (isinstance(value, ETraceConfig) and value.is_factorized is factored):
        return
    wanted = "io_factorized" if factored else "per_param"
    raise UsageError(
        "Invalid config.",
        got=repr(value),
        expected=f"an ETraceConfig with trace_factorization={wanted!r}",
        do="pass the config to braintrace.compile in the algorithm's place: it chooses the class",
    )
