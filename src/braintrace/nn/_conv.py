"""Convolutions whose weights, inputs and biases may carry a unit."""

from typing import Any

import brainstate

from ..operators._units import Value, join, split, with_bias


class _Conv:
    """brainstate's convolution on values without units, with the units put on what comes out."""

    def _conv_op(self: Any, x: Value, params: dict[str, Any]) -> Value:
        (data, of_data), (kernel, of_kernel) = split(x), split(params["weight"])
        plain = {k: v for k, v in params.items() if k != "bias"} | {"weight": kernel}
        convolved: Any = super()
        y = convolved._conv_op(data, plain)
        # While the layer is made, only the shape is asked for, and of an x without its unit.
        bias = None if self.out_size is None else params.get("bias")
        return with_bias(join(y, of_data, of_kernel), bias, None)


class Conv1d(_Conv, brainstate.nn.Conv1d):
    """`brainstate.nn.Conv1d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.Conv1d((28, 1), 4, kernel_size=3)(jnp.ones((2, 28, 1))).shape
    (2, 28, 4)
    """


class Conv2d(_Conv, brainstate.nn.Conv2d):
    """`brainstate.nn.Conv2d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.Conv2d((28, 28, 1), 4, kernel_size=3)(jnp.ones((2, 28, 28, 1))).shape
    (2, 28, 28, 4)
    """


class Conv3d(_Conv, brainstate.nn.Conv3d):
    """`brainstate.nn.Conv3d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.Conv3d((8, 8, 8, 1), 4, kernel_size=3)(jnp.ones((2, 8, 8, 8, 1))).shape
    (2, 8, 8, 8, 4)
    """


class ScaledWSConv1d(_Conv, brainstate.nn.ScaledWSConv1d):
    """`brainstate.nn.ScaledWSConv1d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    The kernel of each output channel has mean 0 and variance 1 / fan-in, in the kernel's own unit,
    times a learned gain (Qiao et al. 2019).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.ScaledWSConv1d((28, 1), 4, kernel_size=3)(jnp.ones((2, 28, 1))).shape
    (2, 28, 4)
    """


class ScaledWSConv2d(_Conv, brainstate.nn.ScaledWSConv2d):
    """`brainstate.nn.ScaledWSConv2d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    The kernel of each output channel has mean 0 and variance 1 / fan-in, in the kernel's own unit,
    times a learned gain (Qiao et al. 2019).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.ScaledWSConv2d((28, 28, 1), 4, kernel_size=3)(jnp.ones((2, 28, 28, 1))).shape
    (2, 28, 28, 4)
    """


class ScaledWSConv3d(_Conv, brainstate.nn.ScaledWSConv3d):
    """`brainstate.nn.ScaledWSConv3d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    The kernel of each output channel has mean 0 and variance 1 / fan-in, in the kernel's own unit,
    times a learned gain (Qiao et al. 2019).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.ScaledWSConv3d((8, 8, 8, 1), 4, kernel_size=3)(
    ...     jnp.ones((2, 8, 8, 8, 1))
    ... ).shape
    (2, 8, 8, 8, 4)
    """


class ConvTranspose1d(_Conv, brainstate.nn.ConvTranspose1d):
    """`brainstate.nn.ConvTranspose1d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.ConvTranspose1d((28, 1), 4, kernel_size=3)(jnp.ones((2, 28, 1))).shape
    (2, 28, 4)
    """


class ConvTranspose2d(_Conv, brainstate.nn.ConvTranspose2d):
    """`brainstate.nn.ConvTranspose2d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.ConvTranspose2d((28, 28, 1), 4, kernel_size=3)(jnp.ones((2, 28, 28, 1))).shape
    (2, 28, 28, 4)
    """


class ConvTranspose3d(_Conv, brainstate.nn.ConvTranspose3d):
    """`brainstate.nn.ConvTranspose3d`, for values with or without a unit.

    The result is in the product of the units of x and kernel; so is the bias.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.nn.ConvTranspose3d((8, 8, 8, 1), 4, kernel_size=3)(
    ...     jnp.ones((2, 8, 8, 8, 1))
    ... ).shape
    (2, 8, 8, 8, 4)
    """
