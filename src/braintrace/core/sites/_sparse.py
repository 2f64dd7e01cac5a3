"""Products with a sparse matrix: the trace holds one entry for each stored element of the matrix,
and none for the others.

Every format comes down to two arrays of index numbers, `out` and `into`: stored element e adds
`W[e] x[into[e]]` to `y[out[e]]`. A matrix whose stored elements share one number (a homogeneous
weight) has a trace shaped as y.
"""

import copy
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from ..jaxpr import Const, Equation
from ..kernels import paired
from ._rule import SiteRule

Pair = tuple[jax.Array, jax.Array]  # (out, into), each shaped as the stored elements
Ends = Callable[..., Pair]  # from the structure operands


class SparseRule(SiteRule):
    """`y[out[e], ...] = sum_e W[e] x[into[e], ...]`, with the rows of x along `axis` of x and those
    of y along `y_axis` of y.

    `data` is the number of x. The operands before it say where the elements are, and `ends` turns
    their values into (out, into). They are constants of the program, or they are put in by `bound`
    once the prelude is evaluated.
    """

    def __init__(
        self,
        equation: Equation,
        data: int,
        stored: tuple[int, ...],
        ends: Ends,
        axis: int = 0,
        y_axis: int = 0,
    ):
        super().__init__(equation, 0)
        self._x, self._axis, self._y_axis = data, axis, y_axis
        self._make_ends, self._stored = ends, stored
        self._ends: Pair | None = None
        self.structure = atoms = tuple(equation.inputs[1:data])
        if all(isinstance(v, Const) for v in atoms):
            with jax.ensure_compile_time_eval():
                self._ends = ends(*(jnp.asarray(v.value) for v in atoms if isinstance(v, Const)))

    def bound(self, values: Sequence[jax.Array]) -> "SparseRule":
        rule = copy.copy(self)
        rule._ends = self._make_ends(*values)
        return rule

    @property
    def is_bound(self) -> bool:
        return self._ends is not None

    @property
    def data(self) -> tuple[int, ...]:
        return (self._x,)

    def entry_axis(self, axis: int) -> int | None:
        number = len(self._stored) + axis - (axis > self._y_axis)
        return None if axis == self._y_axis else number

    @property
    def trace_shape(self) -> tuple[int, ...]:
        y = self.equation.outputs[0].shape
        return (*self._stored, *(n for d, n in enumerate(y) if d != self._y_axis))

    def contraction(self) -> tuple[int, ...]:
        return ()

    def lane_axis(self, axis: int) -> int | None:
        number = axis - (axis > self._y_axis)  # among those that are no rows
        return None if axis == self._y_axis else number + (number >= self._axis)

    def places(self) -> tuple[np.ndarray, np.ndarray, int, int]:
        """(out, into), flat, with the axes of x and y that hold the rows."""
        out, into = (np.asarray(self._end(k)).reshape(-1) for k in (0, 1))
        return out, into, self._axis, self._y_axis

    def represent(self, data: list[jax.Array]) -> jax.Array:
        (x,) = data
        return x.astype(np.result_type(x.dtype, self.equation.outputs[0].dtype))

    def at_entries(self, values: jax.Array) -> jax.Array:
        return _rows(jnp.moveaxis(values, self._y_axis, 0), self._end(0))

    def _end(self, which: int) -> jax.Array:
        assert self._ends is not None
        return self._ends[which].reshape(self._stored)

    def _meets(self, x: jax.Array, dtype: DTypeLike) -> jax.Array:
        """The data that each stored element meets."""
        return _rows(jnp.moveaxis(x, self._axis, 0), self._end(1)).astype(dtype)

    def spread(self, f: jax.Array, data: list[jax.Array]) -> jax.Array:
        return self.at_entries(f) * self._meets(self.represent(data), f.dtype)

    def collect(self, entries: jax.Array) -> jax.Array:
        total = entries.sum(tuple(range(len(self._stored), entries.ndim)))
        return total.reshape(self._weight_shape)

    @property
    def _weight_shape(self) -> tuple[int, ...]:
        return self.equation.inputs[self.operand].shape

    def weight_gradient(self, x: jax.Array, c: jax.Array) -> jax.Array:
        return self.collect(self.at_entries(c) * self._meets(x, c.dtype))

    def weight_gradient_sum(self, x: Num[Array, "T ..."], c: Num[Array, "T ..."]) -> jax.Array:
        add = lambda total, at: (total + self.weight_gradient(*at), None)
        return jax.lax.scan(add, jnp.zeros(self._weight_shape, c.dtype), (x, c))[0]


class StoredRule(SparseRule):
    """A weight for each stored element. Sums over time take the time of the events in x, where the
    elements are stored row by row of x.
    """

    counts_events = True

    def weight_gradient_sum(self, x: Num[Array, "T ..."], c: Num[Array, "T ..."]) -> jax.Array:
        together = lambda v, axis: (v := self._lanes_first(v, axis)).reshape(-1, v.shape[-1])
        pair = together(x, self._axis).astype(c.dtype), together(c, self._y_axis)
        return self._paired(*pair).reshape(self._weight_shape)

    def data_gradient_sum(
        self, data: list[jax.Array], c: Num[Array, "T ..."], weight: jax.Array
    ) -> jax.Array:
        return self.weight_gradient_sum(jax.vmap(lambda x: self.represent([x]))(*data), c)

    def spread_sum(self, f: Num[Array, "T ..."], data: list[jax.Array]) -> jax.Array:
        x = jax.vmap(lambda x: self.represent([x]))(*data).astype(f.dtype)
        x, f = self._lanes_first(x, self._axis), self._lanes_first(f, self._y_axis)
        flat = lambda v: v.reshape(-1, *v.shape[-2:])
        entries = jax.vmap(self._paired)(flat(x), flat(f))  # of each sample, stored elements
        return jnp.moveaxis(entries, 0, -1).reshape(self.trace_shape)

    def _paired(self, x: Num[Array, "T I"], c: Num[Array, "T O"]) -> Num[Array, " E"]:
        return paired(self._end(0).reshape(-1), self._end(1).reshape(-1), x, c)

    @staticmethod
    def _lanes_first(values: Num[Array, "T ..."], axis: int) -> Num[Array, "... T n"]:
        """Time and the rows, which lie along `axis` of a step, behind everything else."""
        return jnp.moveaxis(values, (0, axis + 1), (-2, -1))


class HomogeneousRule(SparseRule):
    """One number for all stored elements: `y = W (A x)` with A the matrix of ones. The trace is
    shaped as y.
    """

    @property
    def trace_shape(self) -> tuple[int, ...]:
        return self.equation.outputs[0].shape

    def entry_axis(self, axis: int) -> int | None:
        return axis

    def at_entries(self, values: jax.Array) -> jax.Array:
        return values

    def _meets(self, x: jax.Array, dtype: DTypeLike) -> jax.Array:
        """A x."""
        met = super()._meets(x, dtype)
        y = jnp.moveaxis(jnp.zeros(self.trace_shape, dtype), self._y_axis, 0)
        total = y.at[self._end(0).reshape(-1)].add(met.reshape(-1, *y.shape[1:]), mode="drop")
        return jnp.moveaxis(total, 0, self._y_axis)

    def collect(self, entries: jax.Array) -> jax.Array:
        return entries.sum().reshape(self._weight_shape)


def _rows(values: jax.Array, index: jax.Array) -> jax.Array:
    """Rows of `values`; zeros where the index is outside of them, as where a BCOO matrix is
    padded.
    """
    return values.at[index].get(mode="fill", fill_value=0, wrap_negative_indices=False)
