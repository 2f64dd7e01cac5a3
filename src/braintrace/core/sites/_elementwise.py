"""Parameters that act element by element. The trace has the parameter's own shape."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from ._rule import SiteRule, sum_steps


class ScaleRule(SiteRule):
    """`y = W * x` with data x: the middle of a sparse product that is written as gather, multiply,
    add up.
    """

    def contraction(self) -> tuple[int, ...]:
        return ()

    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        return f * self.represent(data).astype(f.dtype)

    def collect(self, entries: jax.Array) -> jax.Array:
        return entries

    def lane_axis(self, axis: int) -> int | None:
        return axis

    def neurons(self) -> list[tuple[int, int | None]]:
        return [(n, n) for n in range(len(self._y_shape))]

    def weight_gradient_sum(self, x: Num[Array, "T ..."], c: Num[Array, "T ..."]) -> jax.Array:
        return sum_steps(x.astype(c.dtype) * c)


class OperandRule(ScaleRule):
    """A parameter operand inside a region: bias, gain, time constant, threshold. `y` is the operand
    itself, its input 1.
    """

    @property
    def data(self) -> tuple[int, ...]:
        return ()

    @property
    def _y_shape(self) -> tuple[int, ...]:
        return self.equation.inputs[self.operand].shape

    @property
    def trace_shape(self) -> tuple[int, ...]:
        return self._y_shape

    def entry_axis(self, axis: int) -> int | None:
        return axis

    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        return f

    def represent(self, data: list[jax.Array]) -> jax.Array:
        return jnp.ones(self.trace_shape)

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return x.astype(c.dtype) * c

    def spread_sum(self, f: Num[Array, "T ..."], data: list[jax.Array]) -> jax.Array:
        return sum_steps(f)

    def data_gradient_sum(
        self, data: list[jax.Array], c: Num[Array, "T ..."], weight: jax.Array
    ) -> jax.Array:
        return sum_steps(c)
