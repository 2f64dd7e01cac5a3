"""Convolution in any number of dimensions, with stride, padding, dilation and groups."""

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import P
from ..jaxpr import Equation
from ._rule import SiteRule, register_site_rule


class ConvRule(SiteRule):
    """The trace holds, for each output position and channel, the patch of the input under the
    kernel.
    """

    def __init__(self, equation: Equation):
        super().__init__(equation, 1)
        self._params = equation.params
        self._kernel = equation.inputs[1].shape
        self._y = equation.outputs[0].shape
        numbers = equation.params["dimension_numbers"]
        self._lhs, self._rhs, self._out = numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec
        # the kernel's axes but its output channel, as contraction index: input channel of the
        # group, then space
        self._contract = [self._rhs[1], *self._rhs[2:]]

    def contraction(self) -> tuple[int, ...]:
        return tuple(self._kernel[k] for k in self._contract)

    def lane_axis(self, axis: int) -> int | None:
        return self._lhs[0] if axis == self._out[0] else None

    def neurons(self) -> list[tuple[int, int | None]]:
        return [(self._out[1], self._rhs[0])]

    def _patches(self, x: jax.Array) -> jax.Array:
        """(batch, space of y, groups, channels of a group, kernel space)."""
        p = self._params
        space = tuple(self._kernel[k] for k in self._rhs[2:])
        n = len(space)
        first = jnp.transpose(x, self._lhs)  # batch, channel, space
        names = ("window_strides", "padding", "lhs_dilation", "rhs_dilation")
        exact = jax.lax.Precision.HIGHEST
        patches = jax.lax.conv_general_dilated_patches(
            first, space, *(p[n] for n in names), precision=exact
        )
        groups = p["feature_group_count"]
        channels = first.shape[1] // groups
        patches = patches.reshape(first.shape[0], groups, channels, *space, *patches.shape[2:])
        return jnp.transpose(patches, (0, *range(3 + n, 3 + 2 * n), 1, 2, *range(3, 3 + n)))

    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        x = data[0].astype(f.dtype)
        patches = self._patches(x)  # batch, space, groups, channels, kernel space
        n = len(self._rhs) - 2
        groups = self._params["feature_group_count"]
        g = jnp.moveaxis(jnp.transpose(f, self._out), 1, -1)  # batch, space, channel of y
        g = g.reshape(*g.shape[:-1], groups, g.shape[-1] // groups)
        out = g.reshape(*g.shape, *(1,) * (n + 1)) * jnp.expand_dims(patches, n + 2)
        out = jax.lax.collapse(out, n + 1, n + 3)
        out = jnp.moveaxis(out, n + 1, 1)  # batch, channel of y, space, contraction
        back = np.argsort(self._out)
        return jnp.transpose(out, (*back, *range(n + 2, out.ndim)))

    def collect(self, entries: jax.Array) -> jax.Array:
        n = len(self._rhs) - 2
        kept = self._out[1]
        # channel of y, input channel, space
        total = entries.sum(tuple(k for k in range(n + 2) if k != kept))
        return jnp.transpose(total, np.argsort(self._rhs).tolist())


def _make(equation: Equation, operand: int) -> SiteRule | None:
    if operand != 1 or equation.params["batch_group_count"] != 1:
        return None
    return ConvRule(equation)


register_site_rule(P.conv_general_dilated_p, _make)
