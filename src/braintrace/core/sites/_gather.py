"""Embedding: rows of a table, chosen by indices."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Num

from .._compat import P
from ..jaxpr import Equation
from ._rule import SiteRule, register_site_rule


class RowsRule(SiteRule):
    """`y = table[indices]`, whole rows along one axis: the data is the one-hot code of the index.

    `along` lists the axes of y that run along a row; its other axes are those of the indices. Where
    `kept`, the axis of the rows is one of them, with size 1.
    """

    def __init__(self, equation: Equation, axis: int, along: tuple[int, ...], kept: bool):
        super().__init__(equation, 0)
        self._axis, self._rows, self._kept = axis, equation.inputs[0].shape[axis], kept
        self._shape = equation.inputs[0].shape
        self._places = [d for d in range(len(equation.outputs[0].shape)) if d not in along]

    def contraction(self) -> tuple[int, ...]:
        return (self._rows,)

    def lane_axis(self, axis: int) -> int | None:
        return self._places.index(axis) if axis in self._places else None

    def neurons(self) -> list[tuple[int, int | None]]:
        axes = [k for k in range(len(self._shape)) if self._kept or k != self._axis]
        along = [d for d in range(len(self._y_shape)) if d not in self._places]
        pairs = zip(along, axes, strict=True)
        return [(d, k) for d, k in pairs if k != self._axis]

    def represent(self, data: list[jax.Array]) -> jax.Array:
        if self.equation.primitive is P.dynamic_slice_p:
            index, clips = data[self._axis], True
        else:
            numbers, mode = (self.equation.params[k] for k in ("dimension_numbers", "mode"))
            index = data[0][..., numbers.start_index_map.index(self._axis)]
            clips = mode == jax.lax.GatherScatterMode.CLIP
        index = jnp.clip(index, 0, self._rows - 1) if clips else index
        return jax.nn.one_hot(index, self._rows)  # axes of the indices, rows; zero outside

    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        return self._spread(f, self.represent(data).astype(f.dtype))

    def _spread(self, f: jax.Array, code: jax.Array) -> jax.Array:
        shape = [1] * f.ndim + [self._rows]
        for d, size in zip(self._places, code.shape[:-1], strict=True):
            shape[d] = size
        return f[..., None] * code.reshape(shape)

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return self.collect(self._spread(c, x.astype(c.dtype)))

    def weight_gradient_sum(self, x: Num[Array, "T ..."], c: Num[Array, "T ..."]) -> jax.Array:
        y = "abcdefghijklmnopqrstuvw"[: c.ndim - 1]
        places = "".join(y[d] for d in self._places)
        row = "".join(letter for letter in y if letter not in places)
        names = f"X{places}R,X{y}->{row}R"
        exact = jax.lax.Precision.HIGHEST
        return self._as_table(jnp.einsum(names, x.astype(c.dtype), c, precision=exact))

    def collect(self, entries: jax.Array) -> jax.Array:
        return self._as_table(entries.sum(tuple(self._places)))

    def _as_table(self, total: jax.Array) -> jax.Array:
        """Of axes of a row, rows."""
        total = total.squeeze(self._axis) if self._kept else total
        return jnp.moveaxis(total, -1, self._axis)


def _cut(equation: Equation) -> int | None:
    """The one axis of the table of which a slice has one element where it has all of the others."""
    table, sizes = equation.inputs[0].shape, equation.params["slice_sizes"]
    cut = [k for k, (whole, part) in enumerate(zip(table, sizes, strict=True)) if whole != part]
    one_row = len(cut) == 1 and sizes[cut[0]] == 1 and 0 not in sizes
    return cut[0] if one_row else None


def _make(equation: Equation, operand: int) -> SiteRule | None:
    numbers, mode = (equation.params[k] for k in ("dimension_numbers", "mode"))
    starts, collapsed = numbers.start_index_map, tuple(numbers.collapsed_slice_dims)
    # Of an axis of size 1 the slice is whole, too.
    axis = starts[0] if len(starts) == 1 and collapsed in ((), starts) else _cut(equation)
    sizes = equation.params["slice_sizes"]
    whole = axis is not None and sizes == tuple(
        1 if k == axis else s for k, s in enumerate(equation.inputs[0].shape)
    )
    # A start along another axis is clipped to 0, or fills the row where it is not.
    fills = mode == jax.lax.GatherScatterMode.FILL_OR_DROP and len(starts) > 1
    if operand != 0 or axis is None or axis not in starts or not whole or 0 in sizes or fills:
        return None
    if numbers.operand_batching_dims or collapsed not in ((), (axis,)):
        return None
    return RowsRule(equation, axis, tuple(numbers.offset_dims), kept=not collapsed)


register_site_rule(P.gather_p, _make)


def _make_row(equation: Equation, operand: int) -> SiteRule | None:
    axis = _cut(equation) if operand == 0 else None
    every = tuple(range(len(equation.outputs[0].shape)))
    return None if axis is None else RowsRule(equation, axis, every, kept=True)


register_site_rule(P.dynamic_slice_p, _make_row)
