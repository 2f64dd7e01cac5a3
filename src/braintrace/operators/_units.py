"""Values with a physical unit: taken apart before an operation and put together after it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..core._errors import UsageError

Value = Any  # an array, or one with a unit (a Quantity)
Unit = Any  # None for no unit
Transform = Callable[[jax.Array], jax.Array]


def split(value: Value) -> tuple[jax.Array, Unit]:
    """The number of a value and its unit; None for a plain array."""
    unit = getattr(value, "unit", None)
    return (jnp.asarray(value), None) if unit is None else (value.mantissa, unit)


def join(number: jax.Array, *units: Unit) -> Value:
    """`number` in the product of the units; None stands for no unit."""
    for unit in units:
        if unit is not None:
            number = number * unit
    return number


def transformed(value: Value, transform: Transform | None) -> Value:
    """`transform` of the number of a value, in the value's unit."""
    if transform is None:
        return value
    number, unit = split(value)
    return join(transform(number), unit)


def check_operands(name: str, fits: bool, **operands: tuple[Value, str]) -> None:
    """Refuse operands, each given with the form of its shape, that do not fit."""
    if not fits:
        raise UsageError(
            f"The operands of {name} do not fit.",
            got=", ".join(f"{k} {np.shape(value)}" for k, (value, _) in operands.items()),
            expected=", ".join(f"{k} {form}" for k, (_, form) in operands.items()),
        )


def with_bias(y: Value, bias: Value, transform: Transform | None) -> Value:
    """`y + transform(bias)`; `y` where there is no bias."""
    return y if bias is None else y + transformed(bias, transform)
