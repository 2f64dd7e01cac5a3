"""The domains of arguments: each function returns a value in one form, or refuses it."""

import difflib
import math
import numbers
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, Shaped

from ._compat import is_key, is_traced
from ._errors import UsageError


def flag(name: str, value: object) -> bool:
    """True or False.

    >>> from braintrace import rules
    >>> rules.flag("bias_trace", True)
    True
    """
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise UsageError(f"Invalid {name}.", got=repr(value), expected="True or False")


def choice(name: str, value: object, choices: Sequence[str]) -> str:
    """One of `choices`."""
    if isinstance(value, str) and value in choices:
        return value
    close = difflib.get_close_matches(str(value).lower(), choices, 1)
    expected = " or ".join(map(repr, choices))
    do = f"did you mean {close[0]!r}?" if close else ""
    raise UsageError(f"Unknown {name}.", got=repr(value), expected=expected, do=do)


def known(
    subject: str, given: Iterable[str], names: Collection[str], others: Collection[str] = ()
) -> None:
    """Options that `subject` has: `names`, which an error lists, and `others`."""
    if unknown := sorted(set(given) - {*names, *others}):
        close = difflib.get_close_matches(unknown[0], [*names, *others], 1)
        raise UsageError(
            f"{subject} has no such option.",
            got=", ".join(unknown),
            expected=f"some of {', '.join(names)}",
            do=f"did you mean {close[0]}?" if close else f"look at the signature of {subject}",
        )


def whole(name: str, value: Any, expected: str = "", *, least: int = 1) -> int:
    """A whole number of at least `least`.

    >>> from braintrace import rules
    >>> rules.whole("rank", 3)
    3
    """
    is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if is_whole and int(value) >= least:
        return int(value)
    expected = expected or f"a whole number of at least {least}"
    raise UsageError(f"Invalid {name}.", got=repr(value), expected=expected)


def number(value: Any) -> float:
    """`value` as a number; NaN, which is in no range, for what is none."""
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return float(value) if real else math.nan


def finite(name: str, value: object) -> float:
    """A finite number of either sign."""
    if math.isfinite(found := number(value)):
        return found
    raise UsageError(f"Invalid {name}.", got=repr(value), expected="a finite number")


def fraction(name: str, value: object, *, one: bool = False) -> float:
    """A number in [0, 1), or in [0, 1] with `one`.

    >>> from braintrace import rules
    >>> rules.fraction("fade", 0.9)
    0.9
    """
    found = number(value)
    if 0 <= found < 1 or (one and found == 1):
        return found
    expected = f"a number in [0, 1{']' if one else ')'}"
    raise UsageError(f"Invalid {name}.", got=repr(value), expected=expected)


def positive(name: str, value: object, *, zero: bool = False) -> float:
    """A finite number above zero, or zero too.

    >>> from braintrace import rules
    >>> rules.positive("scale", 2)
    2.0
    """
    if 0 < number(value) < math.inf or (zero and number(value) == 0):
        return number(value)
    expected = "a number of at least 0" if zero else "a number above 0"
    raise UsageError(f"Invalid {name}.", got=repr(value), expected=expected)


def array(what: str, value: Any, *, real: bool = False) -> Array:
    """`value` as an array of numbers; with `real`, of booleans, whole or real ones."""
    try:
        found = value if isinstance(value, jax.Array) else jnp.asarray(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(
            f"The {what} is not an array.",
            got=described(value),
            expected="an array of numbers, or what jnp.asarray makes one of",
        ) from error
    if real and not any(jnp.issubdtype(found.dtype, k) for k in _REAL):
        raise UsageError(
            f"The {what} is not real.",
            got=f"dtype {found.dtype}",
            expected="booleans, whole or real numbers",
        )
    return found


def arrays(what: str, tree: PyTree) -> PyTree:
    """A tree with its numbers as arrays, none without elements; a `ShapeDtypeStruct` stays one."""

    def made(v: Any) -> Array | jax.ShapeDtypeStruct:
        if not isinstance(v, jax.ShapeDtypeStruct):
            return array(what, v)
        dtype = jax.dtypes.canonicalize_dtype(v.dtype, allow_extended_dtype=True)
        return v.update(dtype=dtype)

    found = jax.tree.map(made, tree)
    for path, value in jax.tree_util.tree_leaves_with_path(found):
        check_elements(f"{what}{jax.tree_util.keystr(path)}", value.shape)
    return found


def check_elements(name: str, shape: tuple[int, ...]) -> None:
    """Refuse an array without elements."""
    if 0 in shape:
        raise UsageError(
            f"The {name} has no elements.",
            got=f"shape {shape}",
            expected="at least one of each: samples, inputs, neurons",
        )


def key_or_number(name: str, value: Any) -> int | Array:
    """A whole number, or the words of a PRNG key."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, jax.Array | np.ndarray):
        if is_key(value.dtype):
            return jax.random.key_data(value)
        if value.dtype == np.uint32:
            return jnp.asarray(value)
    raise UsageError(f"Invalid {name}.", got=repr(value), expected="a whole number or a PRNG key")


def leaf(name: str, value: Any, *, values: bool = True) -> jax.ShapeDtypeStruct:
    """Shape and dtype of a leaf of a tree, which is an array or a number; without `values` a
    `ShapeDtypeStruct` will do.
    """
    dtype: Any = getattr(value, "dtype", None)
    number: Any = value
    if dtype is None and isinstance(value, numbers.Number):
        dtype = jax.dtypes.canonicalize_dtype(np.result_type(number))
    is_value = not (values and isinstance(value, jax.ShapeDtypeStruct))
    numeric = dtype is not None and any(jnp.issubdtype(dtype, kind) for kind in _NUMBERS)
    if is_value and (numeric or (dtype is not None and is_key(dtype))):
        own = jax.dtypes.canonicalize_dtype(dtype, allow_extended_dtype=True)
        return jax.ShapeDtypeStruct(np.shape(number), own)
    raise UsageError(
        f"The {name} is not an array.",
        got=described(value),
        expected="an array, or a number",
        do="convert it with jnp.asarray" if dtype is None else "pass values",
    )


def on_host(given: Any, found: Array) -> Shaped[np.ndarray, "..."] | None:
    """The values of the array `found`, made of what is `given`, where they are known to this
    process, else None.
    """
    if isinstance(given, np.ndarray):
        return given
    if is_traced(found) or not found.is_fully_addressable:
        return None
    return np.asarray(jax.device_get(found))


def described(value: Any) -> str:
    """A value in an error: its dtype and shape, or itself where it has none."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None:
        return f"{type(value).__name__} of dtype {dtype} and shape {np.shape(value)}"
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 60 else shown[:60] + '...'}"


_REAL = (jnp.bool_, jnp.integer, jnp.floating)
_NUMBERS = (jnp.bool_, jnp.number)
