"""Values with a physical unit: taken apart before an operation and put together after it."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ..core._domains import array, described
from ..core._errors import UsageError

Value = Any  # an array, or one with a unit (a Quantity)
Unit = Any  # None for no unit
Transform = Callable[[jax.Array], jax.Array]


def split(value: Value) -> tuple[jax.Array, Unit]:
    """The number of a value and its unit; None for a plain array."""
    unit = getattr(value, "unit", None)
    return (array("operand", value), None) if unit is None else (value.mantissa, unit)


def join(number: jax.Array, *units: Unit) -> Value:
    """`number` in the product of the units; None stands for no unit."""
    for unit in units:
        if unit is not None:
            number = number * unit
    return number


def transformed(value: Value, transform: Transform | None, *, same: bool = True) -> Value:
    """`transform` of the number of a value, in the value's unit; it keeps the shape, if `same`."""
    if transform is None:
        return value
    if not callable(transform):
        expected = "a function of an array, or None"
        raise UsageError("Invalid transform.", got=described(transform), expected=expected)
    number, unit = split(value)
    found = transform(number)
    if same and np.shape(found) != np.shape(number):
        raise UsageError(
            "A transform changes the shape of a weight.",
            got=f"shape {np.shape(found)}",
            expected=f"shape {np.shape(number)}",
        )
    return join(found, unit)


def check_operands(name: str, fits: bool, **operands: tuple[Value, str]) -> None:
    """Refuse operands, each given with the form of its shape, that do not fit."""
    if not fits:
        raise UsageError(
            f"The operands of {name} do not fit.",
            got=", ".join(f"{k} {np.shape(value)}" for k, (value, _) in operands.items()),
            expected=", ".join(f"{k} {form}" for k, (_, form) in operands.items()),
        )


def fitted(name: str, operation: Callable[[], jax.Array], **operands: Value) -> jax.Array:
    """The result of a JAX operation, whose own error says what does not fit."""
    try:
        return operation()
    except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        raise UsageError(
            f"The operands of {name} do not fit.",
            got=", ".join(f"{k} {np.shape(value)}" for k, value in operands.items()),
            expected="operands and options that fit each other",
            do=str(error).splitlines()[0],
        ) from error


def with_bias(y: Value, bias: Value, transform: Transform | None) -> Value:
    """`y + transform(bias)`; `y` where there is no bias."""
    if bias is None:
        return y
    split(bias)  # which refuses what is no array
    found = transformed(bias, transform)
    shape, of_bias = np.shape(y), np.shape(found)
    pairs = zip(reversed(of_bias), reversed(shape), strict=False)
    if len(of_bias) > len(shape) or any(b not in (1, n) for b, n in pairs):
        raise UsageError(
            "The bias does not fit the result.", got=f"shape {of_bias}", expected=f"that of {shape}"
        )
    return y + found
