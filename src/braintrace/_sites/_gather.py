"""Embedding: rows of a table, chosen by indices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import P
from .._jaxpr import Equation
from ._rule import SiteRule, register_site_rule


class GatherRule(SiteRule):
    """`y = table[indices]`, whole rows along one axis: the data is the one-hot code of the index."""

    def __init__(self, equation: Equation):
        super().__init__(equation, 0)
        numbers = equation.params["dimension_numbers"]
        (self._axis,) = numbers.start_index_map
        self._rows = equation.inputs[0].shape[self._axis]
        self._offset = numbers.offset_dims  # axes of y that run along a row; the others are those of the indices
        self._ndim = len(equation.outputs[0].shape)

    def contraction(self) -> tuple[int, ...]:
        return (self._rows,)

    @property
    def _places(self) -> list[int]:
        return [d for d in range(self._ndim) if d not in self._offset]

    def lane_axis(self, axis: int) -> int | None:
        return self._places.index(axis) if axis in self._places else None

    def represent(self, data: list[Any]) -> jax.Array:
        return jax.nn.one_hot(data[0][..., 0], self._rows)  # axes of the indices, rows

    def spread(self, f: jax.Array, data: list[Any]) -> jax.Array:
        return self._spread(f, self.represent(data).astype(f.dtype))

    def _spread(self, f: jax.Array, code: jax.Array) -> jax.Array:
        shape = [1] * self._ndim + [self._rows]
        for d, size in zip(self._places, code.shape[:-1], strict=True):
            shape[d] = size
        return f[..., None] * code.reshape(shape)

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return self.collect(self._spread(c, x.astype(c.dtype)))

    def weight_gradient_sum(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return jax.vmap(self.weight_gradient)(x, c).sum(0)

    def collect(self, entries: jax.Array) -> jax.Array:
        total = entries.sum(tuple(self._places))  # axes of a row, rows
        return jnp.moveaxis(total, -1, self._axis)


def _make(equation: Equation, operand: int) -> SiteRule | None:
    numbers = equation.params["dimension_numbers"]
    table = equation.inputs[0].shape
    if operand != 0 or len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
        return None
    (axis,) = numbers.start_index_map
    sizes = tuple(1 if k == axis else s for k, s in enumerate(table))
    whole_rows = tuple(equation.params["slice_sizes"]) == sizes and tuple(numbers.collapsed_slice_dims) == (axis,)
    return GatherRule(equation) if whole_rows and np.prod(sizes) > 0 else None


register_site_rule(P.gather_p, _make)
