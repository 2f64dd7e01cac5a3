"""A parameter operand inside a region: bias, gain, time constant, threshold. The trace has the operand's own shape."""

from typing import Any

import jax
import jax.numpy as jnp

from ._rule import SiteRule, sum_steps


class OperandRule(SiteRule):
    """`y` is the operand itself and its input is 1."""

    def contraction(self) -> tuple[int, ...]:
        return ()

    def spread(self, f: jax.Array, data: list[Any]) -> jax.Array:
        return f

    def collect(self, entries: jax.Array) -> jax.Array:
        return entries

    def lane_axis(self, axis: int) -> int | None:
        return axis

    def represent(self, data: list[Any]) -> jax.Array:
        return jnp.ones(self.equation.inputs[self.operand].shape)

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return x.astype(c.dtype) * c

    def weight_gradient_sum(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return sum_steps(x.astype(c.dtype) * c)

    def spread_sum(self, f: jax.Array, data: list[Any]) -> jax.Array:
        return sum_steps(f)
