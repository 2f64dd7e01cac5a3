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
from ..core.traces import StochasticRounding

#: A whole number or a PRNG key, and the hashable form that `seed` gives it.
Seed = int | tuple[int, ...] | jax.Array | None
#: (name of the option, value) -> the value in the form in which the algorithm holds it
Check = Callable[[str, Any], Any]


def option(default: object, check: Check, *, needed: bool = False, compare: bool = True) -> Any:
    """A field of an algorithm with its check. None where it is the default means that the option
    is left out, and is not checked unless it is `needed`.

    Args:
        default: what the option is when it is not given.
        check: `(name, value) -> value`: raises a `UsageError`, or gives the value in the form in
            which the algorithm holds it. Several are here: `fraction`, `positive`, `whole`, `flag`,
            `decay`, `one_of(...)`, `floating`, `seed`, `matrices`.
        needed: whether there is no meaning in leaving it out.
        compare: whether two algorithms with other values are different ones.

    >>> import dataclasses
    >>> from braintrace import rules
    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Mine(rules.Algorithm):
    ...     name = "Mine"
    ...     fade: float = rules.option(0.9, rules.fraction)
    ...     def parts(self):
    ...         return rules.Rule("mine", rules.Presynaptic((self.fade,)))
    >>> Mine(fade=1.5)
    Traceback (most recent call last):
    braintrace...UsageError: Invalid fade...
    """
    metadata = {"check": check, "needed": needed}
    return dataclasses.field(default=default, compare=compare, metadata=metadata)


def floating(name: str, value: DTypeLike | StochasticRounding) -> np.dtype | StochasticRounding:
    """A floating-point dtype, or a `StochasticRounding`.

    >>> from braintrace import rules
    >>> rules.floating("trace_dtype", "float32")
    dtype('float32')
    """
    if isinstance(value, StochasticRounding):
        return value
    with contextlib.suppress(TypeError):
        if jnp.issubdtype(jnp.dtype(value), jnp.inexact):
            return jnp.dtype(value)
    raise UsageError(
        f"Invalid {name}.",
        got=repr(value),
        expected="a floating-point dtype, a rules.StochasticRounding, or None",
        do="pass jnp.float32, say",
    )


def decay(name: str, value: object) -> float:
    """The decay that a decay in [0, 1), or a rank of at least 1, stands for.

    >>> from braintrace import rules
    >>> rules.decay("decay_or_rank", 0.5), rules.decay("decay_or_rank", 3)
    (0.5, 0.5)
    """
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
    """One of `choices`, in any case.

    >>> from braintrace import rules
    >>> rules.one_of("symmetric", "random")("feedback", "Random")
    'random'
    """

    def check(name: str, value: object) -> object:
        found = {c.lower(): c for c in choices}.get(str(value).lower(), value)
        return choice(name, found, choices)

    return check


def seed(name: str, value: object) -> int | tuple[int, ...]:
    """A whole number or a PRNG key as something hashable.

    >>> import jax
    >>> from braintrace import rules
    >>> rules.seed("key", 0), rules.seed("key", jax.random.key(1))
    (0, (0, 1))
    """
    if isinstance(value, tuple) and all(isinstance(v, int) for v in value):
        return value  # it has this form already
    found = key_or_number(name, value)
    return found if isinstance(found, int) else tuple(map(int, np.ravel(found)))


def matrices(name: str, given: Any) -> tuple[np.ndarray, ...]:
    """Feedback matrices as finite arrays; a `FixedRandomFeedback` stands for its own.

    >>> import numpy as np
    >>> from braintrace import rules
    >>> [b.shape for b in rules.matrices("feedback_weights", [np.ones((3, 2))])]
    [(3, 2)]
    """
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
    """Feedback through matrices B that are drawn with a key, or given.

    Raises:
        UsageError: when there is neither a key nor matrices.

    >>> from braintrace import rules
    >>> rules.drawn_or_given("RFLO", 0, None)
    """
    if key is None and weights is None:
        raise UsageError(
            f"{subject} needs to know how to draw B.",
            got="no key and no matrices",
            expected="random_feedback_key",
            do="pass random_feedback_key=0, say, or feedback_weights",
        )
