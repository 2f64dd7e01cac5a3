"""A parameter operand inside a region: bias, gain, time constant, threshold. The trace has the operand's own shape."""

from typing import Any

import jax

from ._rule import SiteRule


class OperandRule(SiteRule):
    """`y` is the operand itself and its input is 1."""

    def contraction(self) -> tuple[int, ...]:
        return ()

    def spread(self, f: jax.Array, data: list[Any]) -> jax.Array:
        return f

    def collect(self, entries: jax.Array) -> jax.Array:
        return entries

    def spread_sum(self, f: jax.Array, data: list[Any]) -> jax.Array:
        return f.sum(0)
