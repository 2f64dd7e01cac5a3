"""Checks of the algorithms' options: each raises at construction, saying what was got and what is
expected.
"""

import contextlib
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from ..compat import ETraceConfig
from ..compat import configured as parts_of
from ..core._errors import UsageError, problem
from ..core.engine import Rule


def trace_dtype(value: Any) -> Any:
    """A floating-point dtype, or None."""
    chosen = None
    if value is not None:
        with contextlib.suppress(TypeError):
            chosen = jnp.dtype(value)
        if chosen is None or not jnp.issubdtype(chosen, jnp.inexact):
            raise UsageError(
                problem(
                    "Wrong trace_dtype.",
                    got=repr(value),
                    expected="a floating-point dtype, or None",
                    do="pass jnp.float32, say",
                )
            )
    return chosen


def decay(name: str, value: Any, *, one: bool = False) -> float:
    """A number in [0, 1), or in [0, 1] with `one`."""
    number = (
        float(value) if isinstance(value, numbers.Real) and not isinstance(value, bool) else -1.0
    )
    if not (0 <= number < 1 or (one and number == 1)):
        raise UsageError(
            problem(
                f"Wrong {name}.",
                got=repr(value),
                expected=f"a number in [0, 1{']' if one else ')'}",
            )
        )
    return number


def positive(name: str, value: Any) -> float:
    """A number above zero."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool) or value <= 0:
        raise UsageError(problem(f"Wrong {name}.", got=repr(value), expected="a number above 0"))
    return float(value)


def one_of(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """One of `choices`, in any case."""
    if not isinstance(value, str) or value.lower() not in [c.lower() for c in choices]:
        raise UsageError(
            problem(
                f"Unknown {name}.", got=repr(value), expected=" or ".join(repr(c) for c in choices)
            )
        )
    return next(c for c in choices if c.lower() == value.lower())


def seed(name: str, value: Any) -> Any:
    """A whole number or a PRNG key, as something hashable."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    if isinstance(value, jax.Array):
        data = (
            jax.random.key_data(value)
            if jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
            else value
        )
        return tuple(int(v) for v in data.reshape(-1))
    raise UsageError(
        problem(f"Wrong {name}.", got=repr(value), expected="a whole number or a PRNG key")
    )


def configured(config: Any, factored: bool, key: Any, dtype: Any) -> Rule:
    """The rule of an `ETraceConfig` whose traces are stored as the class stores them."""
    if not isinstance(config, ETraceConfig) or config.is_factorized is not factored:
        wanted = "io_factorized" if factored else "per_param"
        raise UsageError(
            problem(
                "Wrong config.",
                got=repr(config),
                expected=f"an ETraceConfig with trace_factorization={wanted!r}",
                do="pass the config to braintrace.compile in the algorithm's place: it chooses "
                "the class",
            )
        )
    key = None if key is None else seed("random_feedback_key", key)
    return parts_of(config, random_feedback_key=key, trace_dtype=dtype)
