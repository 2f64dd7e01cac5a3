"""Options of algorithms: each is checked when it is given, and says what was got and expected."""

import contextlib
import dataclasses
import numbers
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from ..core._domains import array, choice, described, key_or_number, number
from ..core._errors import UsageError

#: A whole number or a PRNG key, and the hashable form that `seed` gives it.
Seed = int | tuple[int, ...] | jax.Array | None
#: (name of the option, value) -> the value in the form in which the algorithm holds it
Check = Callable[[str, Any], Any]


def option(default: object, check: Check, *, needed: bool = False, compare: bool = True) -> Any:
    """A field of an algorithm with its check. None where it is the default means that the option
    is left out, and is not checked unless it is `needed`.
    """
    metadata = {"check": check, "needed": needed}
    return dataclasses.field(default=default, compare=compare, metadata=metadata)


def floating(name: str, value: DTypeLike) -> np.dtype:
    """A floating-point dtype."""
    with contextlib.suppress(TypeError):
        if jnp.issubdtype(jnp.dtype(value), jnp.inexact):
            return jnp.dtype(value)
    raise UsageError(
        f"Invalid {name}.",
        got=repr(value),
        expected="a floating-point dtype, or None",
        do="pass jnp.float32, say",
    )


def decay(name: str, value: object) -> float:
    """The decay that a decay in [0, 1), or a rank of at least 1, stands for."""
    found = number(value)
    if isinstance(value, numbers.Integral) and found >= 1:
        return (found - 1) / (found + 1)
    if 0 <= found < 1:
        return found
    raise UsageError(
        f"Invalid {name}.",
        got=repr(value),
        expected="a decay in [0, 1), or a whole number of at least 1",
        do="pass 0.9, or the rank 19 that stands for it",
    )


def one_of(*choices: str) -> Check:
    """One of `choices`, in any case."""

    def check(name: str, value: object) -> object:
        found = {c.lower(): c for c in choices}.get(str(value).lower(), value)
        return choice(name, found, choices)

    return check


def seed(name: str, value: object) -> int | tuple[int, ...]:
    """A whole number or a PRNG key as something hashable."""
    if isinstance(value, tuple) and all(isinstance(v, int) for v in value):
        return value  # it has this form already
    found = key_or_number(name, value)
    return found if isinstance(found, int) else tuple(map(int, np.ravel(found)))


def matrices(name: str, given: Any) -> tuple[np.ndarray, ...]:
    """Feedback matrices as finite arrays; a `FixedRandomFeedback` stands for its own."""
    if not isinstance(given, list | tuple):
        expected = "a list of matrices"
        raise UsageError(f"Invalid {name}.", got=described(given), expected=expected)
    found = [_matrix(f"{name}[{k}]", b) for k, b in enumerate(given)]
    for k, matrix in enumerate(found):
        if not np.isfinite(matrix).all():
            got = f"{name}[{k}] with values that are not finite"
            raise UsageError(f"Invalid {name}.", got=got, expected="finite values")
    return tuple(found)


def _matrix(name: str, value: Any) -> np.ndarray:
    given = getattr(value, "B", value)
    array(name, given)  # which refuses; and what is wider than JAX's floats stays so
    return np.asarray(given)


def text(value: object) -> str:
    """An option as a text that is the same for the same values; arrays by a sum over them."""
    if isinstance(value, tuple):
        return ", ".join(map(text, value))
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{list(value.shape)} #{zlib.crc32(value.tobytes()):08x}"
    return repr(value)


def drawn_or_given(subject: str, key: Seed, weights: object) -> None:
    """Feedback through matrices B that are drawn with a key, or given."""
    if key is None and weights is None:
        raise UsageError(
            f"{subject} needs to know how to draw B.",
            got="no key and no matrices",
            expected="random_feedback_key",
            do="pass random_feedback_key=0, say, or feedback_weights",
        )
