"""Products of data with a dense weight."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from ..core._domains import number
from ..core._errors import UsageError
from ._units import Transform, Value, check_operands, fitted, join, split, transformed, with_bias


def matmul(
    x: Value,
    weight: Value,
    bias: Value = None,
    *,
    weight_fn: Transform | None = None,
    bias_fn: Transform | None = None,
) -> Value:
    """`y = x @ weight_fn(weight) + bias_fn(bias)`.

    Args:
        x: (..., I), with any batch axes.
        weight: (I, O).
        bias: (O,), or None.
        weight_fn: a transform of the weight that keeps its shape, such as `jnp.abs`. The gradient
            is that of the weight itself.
        bias_fn: as `weight_fn`, for the bias.

    Returns:
        (..., O), in the product of the units of x and weight where they have some. The transforms
        see values without units.

    Raises:
        UsageError: when the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.matmul(jnp.ones((16, 3)), -jnp.ones((3, 4)), jnp.zeros(4), weight_fn=jnp.abs)[0]
    Array([3., 3., 3., 3.], dtype=float32)
    """
    fits = np.ndim(weight) == 2 and np.shape(x)[-1:] == np.shape(weight)[:1]
    check_operands("matmul", fits, x=(x, "(..., I)"), weight=(weight, "(I, O)"))
    return with_bias(_einsum("...i,io->...o", x, transformed(weight, weight_fn)), bias, bias_fn)


def grouped_matmul(
    x: Value,
    weight: Value,
    bias: Value = None,
    *,
    weight_fn: Transform | None = None,
    bias_fn: Transform | None = None,
) -> Value:
    """`y[..., g, :] = x[..., g, :] @ weight_fn(weight)[g] + bias_fn(bias)[g]`: G products side by
    side.

    The same map as a dense weight with G blocks on its diagonal, at a G-th of its memory and of its
    trace.

    Args:
        x: (..., G, I), with any batch axes.
        weight: (G, I, O).
        bias: (G, O), or None.
        weight_fn, bias_fn: transforms that keep the shape, as in `matmul`.

    Returns:
        (..., G, O), in the product of the units of x and weight.

    Raises:
        UsageError: when the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.grouped_matmul(jnp.ones((16, 4, 8)), jnp.ones((4, 8, 2))).shape
    (16, 4, 2)
    """
    fits = np.ndim(weight) == 3 and np.shape(x)[-2:] == np.shape(weight)[:2]
    check_operands("grouped_matmul", fits, x=(x, "(..., G, I)"), weight=(weight, "(G, I, O)"))
    return with_bias(_einsum("...gi,gio->...go", x, transformed(weight, weight_fn)), bias, bias_fn)


def einsum(equation: str, x: Value, weight: Value, *, weight_fn: Transform | None = None) -> Value:
    """`einsum(equation, x, weight_fn(weight))`: any contraction of data with a weight.

    Args:
        equation: two operands and a result, such as `'bhd,hde->bhe'`; an ellipsis and axes shared
            over positions are allowed.
        x: the data, with the axes of the first operand.
        weight: the weight, with the axes of the second.
        weight_fn: a transform that keeps the shape, as in `matmul`.

    Returns:
        The contraction, in the product of the units of x and weight.

    Raises:
        UsageError: when the equation is not one of two operands with a result.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.einsum("bhd,hde->bhe", jnp.ones((5, 2, 3)), jnp.ones((2, 3, 4))).shape
    (5, 2, 4)
    """
    operands, arrow, _ = equation.partition("->") if isinstance(equation, str) else ("", "", "")
    if not arrow or operands.count(",") != 1:
        raise UsageError(
            "einsum takes the data and one weight.",
            got=repr(equation),
            expected="'data,weight->result'",
            do="name both operands and the result; further factors go into x or weight",
        )
    return _einsum(equation, x, transformed(weight, weight_fn))


def lora_matmul(
    x: Value,
    B: Value,
    A: Value,
    *,
    alpha: float = 1.0,
    bias: Value = None,
    b_fn: Transform | None = None,
    a_fn: Transform | None = None,
    bias_fn: Transform | None = None,
) -> Value:
    """`y = alpha x @ b_fn(B) @ a_fn(A) + bias_fn(bias)`: a weight of rank r in two factors (Hu et
    al. 2021, "LoRA").

    Args:
        x: (..., I), with any batch axes.
        B: (I, r), the factor that meets the data.
        A: (r, O).
        alpha: the factor's scale.
        bias: (O,), or None.
        b_fn, a_fn, bias_fn: transforms that keep the shape, as in `matmul`.

    Returns:
        (..., O), in the product of the units of x, B and A.

    Raises:
        UsageError: when the shapes do not fit.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.lora_matmul(jnp.ones((16, 8)), jnp.ones((8, 2)), jnp.ones((2, 4)), alpha=0.5)[0]
    Array([8., 8., 8., 8.], dtype=float32)
    """
    meeting = np.shape(x)[-1:] + np.shape(B)[1:], np.shape(B)[:1] + np.shape(A)[:1]
    fits = np.ndim(B) == np.ndim(A) == 2 and meeting[0] == meeting[1]
    check_operands("lora_matmul", fits, x=(x, "(..., I)"), B=(B, "(I, r)"), A=(A, "(r, O)"))
    if not isinstance(alpha, jax.Array) and math.isnan(number(alpha)):
        raise UsageError("Invalid alpha.", got=repr(alpha), expected="a number")
    low = _einsum("...i,ir->...r", x, transformed(B, b_fn))
    return with_bias(alpha * _einsum("...r,ro->...o", low, transformed(A, a_fn)), bias, bias_fn)


def _einsum(equation: str, x: Value, weight: Value) -> Value:
    (data, of_data), (kernel, of_kernel) = split(x), split(weight)
    product = lambda: jnp.einsum(equation, data, kernel)
    y = fitted(f"einsum {equation!r}", product, x=data, weight=kernel)
    return join(y, of_data, of_kernel)
