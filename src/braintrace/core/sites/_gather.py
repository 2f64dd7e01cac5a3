"""Embedding: rows of a table, chosen by indices."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import P
from ..jaxpr import Equation
from ._rule import SiteRule, register_site_rule


class GatherRule(SiteRule):
    """`y = table[indices]`, whole rows along one axis: the data is the one-hot code of the
    index.
    """

    def __init__(self, equation: Equation):
        super().__init__(equation, 0)
        numbers = equation.params["dimension_numbers"]
        (self._axis,) = numbers.start_index_map
        self._rows = equation.inputs[0].shape[self._axis]
        self._offset = (
            numbers.offset_dims
        )  # axes of y that run along a row; the others are those of the indices
        self._ndim = len(equation.outputs[0].shape)

    def contraction(self) -> tuple[int, ...]:
        return (self._rows,)

    @property
    def _places(self) -> list[int]:
        return [d for d in range(self._ndim) if d not in self._offset]

    def lane_axis(self, axis: int) -> int | None:
        return self._places.index(axis) if axis in self._places else None

    def represent(self, data: list[Any]) -> jax.Array:
        index = data[0][..., 0]
        if self.equation.params["mode"] == jax.lax.GatherScatterMode.CLIP:
            index = jnp.clip(index, 0, self._rows - 1)
        return jax.nn.one_hot(index, self._rows)  # axes of the indices, rows; zero outside

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


class RowRule(SiteRule):
    """`y = table[index]` with a scalar index, as a slice of one row: an embedding of a single
    lane.
    """

    def __init__(self, equation: Equation, axis: int):
        super().__init__(equation, 0)
        self._axis, self._rows = axis, equation.inputs[0].shape[axis]

    def contraction(self) -> tuple[int, ...]:
        return (self._rows,)

    def lane_axis(self, axis: int) -> int | None:
        return None

    def represent(self, data: list[Any]) -> jax.Array:
        return jax.nn.one_hot(jnp.clip(data[self._axis], 0, self._rows - 1), self._rows)

    def spread(self, f: jax.Array, data: list[Any]) -> jax.Array:
        return f[..., None] * self.represent(data).astype(f.dtype)

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return self.collect(c[..., None] * x.astype(c.dtype))

    def weight_gradient_sum(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return jax.vmap(self.weight_gradient)(x, c).sum(0)

    def collect(self, entries: jax.Array) -> jax.Array:
        return jnp.moveaxis(entries.squeeze(self._axis), -1, self._axis)


def _make(equation: Equation, operand: int) -> SiteRule | None:
    numbers = equation.params["dimension_numbers"]
    table = equation.inputs[0].shape
    if operand != 0 or len(numbers.start_index_map) != 1 or numbers.operand_batching_dims:
        return None
    (axis,) = numbers.start_index_map
    sizes = tuple(1 if k == axis else s for k, s in enumerate(table))
    whole_rows = tuple(equation.params["slice_sizes"]) == sizes and tuple(
        numbers.collapsed_slice_dims
    ) == (axis,)
    return GatherRule(equation) if whole_rows and np.prod(sizes) > 0 else None


register_site_rule(P.gather_p, _make)


def _make_row(equation: Equation, operand: int) -> SiteRule | None:
    table, sizes = equation.inputs[0].shape, equation.params["slice_sizes"]
    cut = [k for k, (whole, part) in enumerate(zip(table, sizes, strict=True)) if whole != part]
    one_row = operand == 0 and len(cut) == 1 and sizes[cut[0]] == 1 and 0 not in sizes
    return RowRule(equation, cut[0]) if one_row else None


register_site_rule(P.dynamic_slice_p, _make_row)
