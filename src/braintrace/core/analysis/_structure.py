"""Which element of the state a step moves by which: its structure, whatever the values are.

One walk back through the program of one sample, with a row for each new element and each element of
an outlet. A product with a matrix of parameters follows the matrix's own structure: a constant
mask, the places of a sparse one.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from .._compat import P
from ..jaxpr import Atom, Equation, Var, is_stop_trace, makers, nonzero
from ..sites import SparseRule, site_rule
from ._dependence import reach
from ._elements import as_array
from ._outlets import find_outlets, parts_of
from ._sample import OneSample

if TYPE_CHECKING:
    from ._graph import CellGraph

Rows = Bool[np.ndarray, "N elements"]

_LINEAR = (P.dot_general_p, P.conv_general_dilated_p, P.cumsum_p)  # with factors as they stand


@dataclasses.dataclass(frozen=True, eq=False)
class Structure:
    """Of one sample: N rows, n of new state elements and behind them those of the outlets.

    `state`: which old elements move them; `drives`: which elements of each site's y. `units`: the
    position that each belongs to, numbered through all groups; -1 for none.
    """

    state: Bool[np.ndarray, "N n"]
    drives: tuple[Rows, ...]
    units: Int[np.ndarray, " N"]
    known: dict[Any, Any] = dataclasses.field(default_factory=dict)  # what carriers made of it

    @property
    def size(self) -> int:
        """n."""
        return self.state.shape[1]

    @functools.cached_property
    def number_of_units(self) -> int:
        return int(self.units.max(initial=-1)) + 1

    @functools.cached_property
    def by_unit(self) -> Bool[np.ndarray, "U U"]:
        """[v, u]: whether unit u moves unit v."""
        return self._of_units(slice(None, self.size))

    @functools.cached_property
    def read_by_unit(self) -> Bool[np.ndarray, "U U"]:
        """[v, u]: whether the outlets of unit v read unit u."""
        return self._of_units(slice(self.size, None))

    def _of_units(self, rows: slice) -> Bool[np.ndarray, "U U"]:
        found = np.zeros((self.number_of_units,) * 2, bool)
        of, by = np.nonzero(self.state[rows] & (self.units[rows] >= 0)[:, None])
        found[self.units[rows][of], self.units[by]] = True
        return found

    @functools.cached_property
    def seen(self) -> Bool[np.ndarray, " N"]:
        """The elements that a loss sees, now or later; those of outlets included."""
        found = np.ones(len(self.state), bool)
        found[: self.size] = self.state[self.size :].any(0)
        while (more := found[: self.size] | (found @ self.state)).sum() > found[: self.size].sum():
            found[: self.size] = more
        return found


def structure_of(graph: "CellGraph") -> Structure:
    """The structure of a graph of one layer, before its outlets have leaves."""
    assert graph.layers is not None
    walk = _Walk(graph)
    outlets = [v for v in find_outlets(graph) for _ in range(parts_of(v))]
    ends: list[Atom] = [*(graph.new_carry[k] for k in graph.layers.leaves[0]), *outlets]
    sizes = [walk.one.atom(v).size for v in ends]
    starts = np.cumsum([0, *sizes])
    for v, start, size in zip(ends, starts[:-1], sizes, strict=True):
        if isinstance(v, Var):
            row = np.zeros((starts[-1], size), bool)
            row[start + np.arange(size), np.arange(size)] = True
            walk.add(v, row)
    walk.back()
    found = [walk.of(graph.carry[k], starts[-1]) for k in graph.layers.leaves[0]]
    drives = [
        walk.drives.get(n, np.zeros((starts[-1], walk.size_of_y(n)), bool))
        for n in range(len(graph.sites))
    ]
    units = [*_units(graph), *(_units_of(graph, v, walk.one.atom(v).size) for v in outlets)]
    return Structure(np.concatenate(found, 1), tuple(drives), np.concatenate(units))


def prelude_nonzero(graph: "CellGraph", v: Atom) -> np.ndarray | None:
    """Which elements of a value of the prelude may be other than zero; None for any."""
    made = {u: e for u, e in makers(graph.prelude).items() if isinstance(u, Var)}
    return nonzero(v, made)


def _units(graph: "CellGraph") -> list[np.ndarray]:
    """The units of each leaf; what has no position is one of its own, element by element."""
    assert graph.layers is not None
    found, count = [], sum(g.positions for g in graph.groups)
    for k in graph.layers.leaves[0]:
        size, v = graph.sample_size(k), graph.carry[k]
        located = v in graph.labels
        found.append(_units_of(graph, v, size) if located else count + np.arange(size))
        count += 0 if located else size
    return found


def _units_of(graph: "CellGraph", v: Var, size: int) -> np.ndarray:
    if v not in graph.labels:  # the old value of a state without positions
        leaves = [graph.carry[k] for k in graph.layers.leaves[0]] if graph.layers else []
        return _units(graph)[leaves.index(v)]
    first = np.cumsum([0, *(g.positions for g in graph.groups)])
    unit = np.concatenate(
        [first[g] + (np.arange(len(run)) if at is None else at) for run, g, at in graph.placed]
    )
    numbers = as_array(graph.labels[v])
    return np.where(numbers >= 0, unit[numbers], -1)


class _Walk:
    def __init__(self, graph: "CellGraph"):
        self.graph, self.one = graph, OneSample(graph.batch)
        self.crossings = graph.batch.crossings if graph.batch else ()
        self.rows: dict[Atom, Rows] = {}
        self.drives: dict[int, Rows] = {}
        self.operands = {s.edge: n for n, s in enumerate(graph.sites) if not s.is_operation}
        old = [graph.carry[k] for k in graph.hidden]
        self.moving = reach(graph.step, [*old, *(v for s in graph.sites for v in s.end.outputs)])

    def add(self, v: Var, rows: Rows) -> None:
        self.rows[v] = self.rows[v] | rows if v in self.rows else rows

    def of(self, v: Var, count: int) -> Rows:
        return self.rows.get(v, np.zeros((count, self.one.atom(v).size), bool))

    def size_of_y(self, n: int) -> int:
        site = self.graph.sites[n]
        if site.is_operation:
            return self.one.atom(site.y).size
        return self.one.equation(site.equation).inputs[site.edge[1]].size

    def back(self) -> None:
        """From the results of each equation to its operands."""
        operations = {s.end: n for n, s in enumerate(self.graph.sites) if s.is_operation}
        for e in reversed(self.graph.step):
            found = [self.rows.get(v) for v in e.outputs]
            if all(rows is None for rows in found) or is_stop_trace(e):
                continue
            for n, site in enumerate(self.graph.sites) if e in operations else ():
                if site.is_operation and site.end is e and found[0] is not None:
                    self.drives[n] = found[0]
            for k, v in enumerate(e.inputs):
                if (e, k) in self.operands:
                    self.drives[self.operands[e, k]] = self.through(e, k, found)
                elif isinstance(v, Var) and v in self.moving:
                    self.add(v, self.whole(e, k, self.through(e, k, found)))

    def whole(self, e: Equation, k: int, rows: Rows) -> Rows:
        """The rows of an operand that the samples share, of those of the part that each reads."""
        axis = self.graph.batch.aligned.get((e, k)) if self.graph.batch else None
        if axis is None:
            return rows
        shape = self.one.equation(e).inputs[k].shape
        parts = [axis.of_one(row.reshape(shape)) for row in rows]
        return np.stack([np.broadcast_to(p, e.inputs[k].shape).reshape(-1) for p in parts])

    def through(self, e: Equation, k: int, found: Sequence[Rows | None]) -> Rows:
        """The rows of operand k, of those of the results."""
        one, crosses = self.one.equation(e), (e, k) in self.crossings
        influence = None if crosses else self.one.influences(e)[k]
        count = next(len(rows) for rows in found if rows is not None)
        size = one.inputs[k].size
        if influence is None:
            rows = None if crosses else self.mixed(one, e, k, found)
            if rows is not None:
                return rows
            some = np.logical_or.reduce([r.any(1) for r in found if r is not None])
            return np.broadcast_to(some[:, None], (count, size))
        rows = np.zeros((count, size), bool)
        for m in influence:
            if (reached := found[m.output]) is None:
                continue
            if m.in_order:
                rows |= reached
                continue
            source, target = m.pairs(size)
            _mark(rows, source, reached[:, target])
        return rows

    def mixed(
        self, one: Equation, e: Equation, k: int, found: Sequence[Rows | None]
    ) -> Rows | None:
        """The rows of an operand of a product; None where its structure is not known."""
        rows = found[0]
        if rows is None:
            return None
        sparse = site_rule(one, 0) if k else None
        if isinstance(sparse, SparseRule) and sparse.is_bound and k in sparse.data:
            return _through_sparse(sparse, one, k, rows)
        if e.primitive not in _LINEAR:
            return None
        factors = [self.factor(v, w) for v, w in zip(one.inputs, e.inputs, strict=True)]
        like = jax.ShapeDtypeStruct(one.inputs[k].shape, np.float32)
        params = dict(one.params)
        params |= {"preferred_element_type": None} if "preferred_element_type" in params else {}
        floating = Equation(one.primitive, one.inputs, one.outputs, params)

        def product(x: jax.Array) -> jax.Array:
            return floating.bind(
                [x if j == k else jax.numpy.asarray(f) for j, f in enumerate(factors)]
            )[0]

        with jax.ensure_compile_time_eval():
            pull = jax.linear_transpose(product, like)
            given = rows.reshape(len(rows), *one.outputs[0].shape).astype(np.float32)
            back = jax.vmap(lambda c: pull(c)[0])(given)
            return np.asarray(back).reshape(len(rows), -1) > 0

    def factor(self, v: Atom, whole: Atom) -> np.ndarray:
        """Ones where an operand may be other than zero."""
        known = prelude_nonzero(self.graph, whole) if v.shape == whole.shape else None
        return np.ones(v.shape, np.float32) if known is None else known.astype(np.float32)


def _mark(rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
    """Mark columns of all rows, some of them several times, where `values` are marked."""
    np.logical_or.at(np.swapaxes(rows, 0, 1), columns, np.swapaxes(values, 0, 1))


def _through_sparse(rule: SparseRule, one: Equation, k: int, rows: Rows) -> Rows:
    out, into, axis, y_axis = rule.places()
    y = np.moveaxis(rows.reshape(len(rows), *one.outputs[0].shape), y_axis + 1, 1)
    shape = one.inputs[k].shape
    x = np.zeros((len(rows), shape[axis], *(n for d, n in enumerate(shape) if d != axis)), bool)
    inside = (out < y.shape[1]) & (into < x.shape[1])
    _mark(x, into[inside], y[:, out[inside]])
    return np.moveaxis(x, 1, axis + 1).reshape(len(rows), -1)
