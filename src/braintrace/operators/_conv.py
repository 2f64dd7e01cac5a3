"""Convolution in any number of dimensions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ..core._domains import whole
from ..core._errors import UsageError
from ._units import Transform, Value, fitted, join, split, transformed, with_bias


def conv(
    x: Value,
    kernel: Value,
    bias: Value = None,
    *,
    strides: Sequence[int] = (1,),
    padding: str | Sequence[tuple[int, int]] = "SAME",
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    batch_group_count: int = 1,
    dimension_numbers: jax.lax.ConvGeneralDilatedDimensionNumbers = None,
    kernel_fn: Transform | None = None,
    bias_fn: Transform | None = None,
) -> Value:
    """`y = conv(x, kernel_fn(kernel)) + bias_fn(bias)`: `jax.lax.conv_general_dilated` with a bias.

    Args:
        x: the data with a batch axis, as `dimension_numbers` says: by default (batch, channel,
            *space).
        kernel: by default (channel of y, channel of x, *space).
        bias: (channel of y,), added along the channel axis of y; with more axes it is added as it
            is. None for no bias.
        strides: one for each axis of space, or one for all.
        padding: 'SAME', 'VALID', or a pair for each axis of space.
        lhs_dilation, rhs_dilation: spacing of the elements of x and of the kernel, for each axis of
            space.
        feature_group_count: number of groups of channels that do not meet.
        batch_group_count: number of groups of the batch. A kernel with more than one has no trace.
        dimension_numbers: the layout, such as `('NHWC', 'HWIO', 'NHWC')`.
        kernel_fn, bias_fn: transforms that keep the shape, as in `matmul`.

    Returns:
        y, in the product of the units of x and kernel.

    Raises:
        UsageError: when x and kernel have different numbers of axes.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> layout = ("NWC", "WIO", "NWC")
    >>> braintrace.conv(
    ...     jnp.ones((2, 28, 3)), jnp.ones((5, 3, 16)), jnp.zeros(16), dimension_numbers=layout
    ... ).shape
    (2, 28, 16)
    """
    (data, of_data), (weight, of_weight) = split(x), split(transformed(kernel, kernel_fn))
    if data.ndim != weight.ndim or data.ndim < 3:
        raise UsageError(
            "The operands of conv do not fit.",
            got=f"x {data.shape}, kernel {weight.shape}",
            expected="batch, channel and the same axes of space in both",
            do="give x its batch axis: x[None]",
        )
    space = data.ndim - 2
    if not isinstance(strides, tuple | list) or len(strides) not in (1, space):
        expected = f"a tuple of {space} whole numbers, or of one"
        raise UsageError("Invalid strides.", got=repr(strides), expected=expected)
    steps = [whole("stride", step) for step in strides] * (space if len(strides) == 1 else 1)
    numbers = jax.lax.conv_dimension_numbers(data.shape, weight.shape, dimension_numbers)
    layout = lhs_dilation, rhs_dilation, numbers, feature_group_count, batch_group_count
    convolved = lambda: jax.lax.conv_general_dilated(data, weight, steps, padding, *layout)
    y = fitted("conv", convolved, x=data, kernel=weight)
    if bias is not None and np.ndim(bias) == 1:
        channel = numbers.out_spec[1]
        number, unit = split(bias)
        bias = join(jnp.reshape(number, [-1 if k == channel else 1 for k in range(y.ndim)]), unit)
    return with_bias(join(y, of_data, of_weight), bias, bias_fn)
