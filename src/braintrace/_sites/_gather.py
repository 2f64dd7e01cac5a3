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
        numbers = equation.params["dimension_numbers"]
        (self._axis,) = numbers.start_index_map
        self._rows = equation.inputs[0].shape[self._axis]
        self._offset = numbers.offset_dims  # axes of y that run along a row; the others are those of the indices
        self._ndim = len(equation.outputs[0].shape)

    def contraction(self) -> tuple[int, ...]:
        return (self._rows,)

    def spread(self, f: jax.Array, data: list[Any]) -> jax.Array:
        code = jax.nn.one_hot(data[0][..., 0], self._rows, dtype=f.dtype)  # axes of the indices, rows
        places = [d for d in range(self._ndim) if d not in self._offset]
        shape = [1] * self._ndim + [self._rows]
        for d, size in zip(places, code.shape[:-1], strict=True):
            shape[d] = size
        return f[..., None] * code.reshape(shape)

    def collect(self, entries: jax.Array) -> jax.Array:
        places = tuple(d for d in range(self._ndim) if d not in self._offset)
        total = entries.sum(places)  # axes of a row, rows
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
