"""What the traces of a sample leave out of a step, as a matrix that is asked for by rows: it may be
larger than all the traces.

With S the traces by position, L R^T what is known of the influence beside them, D and F the
derivatives of the new state with respect to the old one and to each y, and x the operands,

    E' = D (S + L R^T) + F x - S'              (state elements, weights)

is the influence of the weights after the step without the new traces S'.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._errors import CompilationError
from ..analysis import BatchAxis, CellGraph, Place, Site, as_array
from ..jaxpr import Var
from ..step import Values
from ._carrier import represented, trace_dtype
from ._per_parameter import OfSite, Passing
from ._slots import part_shape

EXACT = jax.lax.Precision.HIGHEST  # accelerators would round the operands

Parts = list[Array]  # for each weight, an array shaped as the part of it that a sample meets
_product = functools.partial(jnp.tensordot, axes=1, precision=EXACT)


class Known(NamedTuple):
    """What is known of the influence on the state: the traces by position (each site's), and L
    (n, rank) and R (for each weight) or None.
    """

    own: list[OfSite]
    left: Float[Array, "*B n r"] | None
    right: list[Array] | None


class Moved(NamedTuple):
    """A step, sample by sample: D, for each site F and its represented data, and the traces by
    position after it.
    """

    rows: Float[Array, "*B n n"]
    drives: list[Array]
    data: list[Array | None]
    own: list[OfSite]


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where the weights of a graph stand in the matrix. `graph` is one layer of all hidden state,
    and its `positions` are bound.
    """

    graph: CellGraph
    dtype: np.dtype | None

    @functools.cached_property
    def positions(self) -> CellGraph:
        """The graph by position, with the rules of its sites bound as those of the graph are."""
        rules = {s.edge: s.rule for s in self.graph.sites if s.is_operation}
        assert self.graph.positions is not None
        sites = [
            dataclasses.replace(s, rule=rules.get(s.edge, s.rule) if s.is_operation else s.rule)
            for s in self.graph.positions.sites
        ]
        return dataclasses.replace(self.graph.positions, sites=tuple(sites))

    @functools.cached_property
    def weights(self) -> list[list[int]]:
        """The numbers of each weight's sites."""
        numbers: dict[Var, list[int]] = {}
        for n, site in enumerate(self.graph.sites):
            numbers.setdefault(site.weight, []).append(n)
        return list(numbers.values())

    @functools.cached_property
    def own(self) -> list[list[int]]:
        """For each weight, the numbers of its sites by position."""
        variables = [self.graph.sites[numbers[0]].weight for numbers in self.weights]
        sites = self.positions.sites
        return [[n for n, s in enumerate(sites) if s.weight is v] for v in variables]

    @functools.cached_property
    def places(self) -> list[list[list[np.ndarray]]]:
        """For each site by position, its places and slots: the state element at each element of one
        sample's y, -1 for none.
        """
        graph = self.positions
        return [
            [[_elements(graph, place, s) for s in place.slots] for place in site.places]
            for site in graph.sites
        ]

    def part_shape(self, weight: int) -> tuple[int, ...]:
        """The shape of the part of a weight that one sample meets."""
        return part_shape(self.graph, self.graph.sites[self.weights[weight][0]])

    def part_dtype(self, weight: int) -> np.dtype:
        """The dtype of what is kept of a weight."""
        sites = [self.graph.sites[n] for n in self.weights[weight]]
        return np.result_type(*(trace_dtype(s, self.dtype) for s in sites))

    def samples_of(self, traces: list[OfSite]) -> list[OfSite]:
        """Traces by position with their samples in front."""
        return [
            self._samples_of_site(site, of)
            for site, of in zip(self.positions.sites, traces, strict=True)
        ]

    def _samples_of_site(self, site: Site, of: OfSite) -> OfSite:
        graph = self.positions
        if not isinstance(of, Passing):
            axis = _entry_axis(graph, site)
            return [[_apart(axis, e) for e in slots] for slots in of]
        x = represented(site, of.data, jax.tree.leaves(of.drive)[0].dtype)
        drive = [[_apart(graph.y_axis(site), f) for f in slots] for slots in of.drive]
        return Passing([self._by_sample(graph.data_axis(site), x)], drive)

    def _by_sample(self, axis: BatchAxis | None, value: Array) -> Array:
        shared = value[None] if axis is None else axis.apart(value)
        return jnp.broadcast_to(shared, (self.graph.samples, *shared.shape[1:]))

    def data_of(self, data: Sequence[Values]) -> list[Array | None]:
        """The represented data of a step with the samples in front; None where there is none."""
        found: list[Array | None] = []
        for site, of in zip(self.graph.sites, data, strict=True):
            x = represented(site, of, trace_dtype(site, self.dtype)) if site.is_operation else None
            axis = self.graph.data_axis(site)
            found.append(None if x is None else self._by_sample(axis, x))
        return found

    def drives_of(self, drives: Values, lead: int) -> list[Array]:
        """Derivatives with respect to each y with the samples in front of `lead` further axes."""
        for site in self.graph.sites:
            if self.graph.samples > 1 and self.graph.y_axis(site) is None:
                raise CompilationError(
                    "A parameter meets all samples at once, so that its influence has no sample.",
                    got=site.equation.name,
                    expected="an operation that keeps the samples apart",
                    do="use D_RTRL, or map a cell written for one sample over the batch",
                    at=site.equation.source,
                )
        pairs = zip(self.graph.sites, drives, strict=True)
        return [jnp.moveaxis(_apart(self.graph.y_axis(s), d, lead), lead, 0) for s, d in pairs]

    # One sample

    def left_out(self, known: Known, moved: Moved, direction: Float[Array, " n"]) -> Parts:
        """u^T E' for a direction u of the state."""
        drives = [_product(direction.astype(f.dtype), f) for f in moved.drives]
        through = self.contracted(known, moved.data, direction @ moved.rows, drives)
        now = self._of_own(moved.own, direction)
        return [a if b is None else a - b for a, b in zip(through, now, strict=True)]

    def contracted(
        self, known: Known, data: list[Array | None], signal: Float[Array, " n"], drives: Values
    ) -> Parts:
        """What a signal on the state before a step and on each y contract the influence to."""
        found = []
        of_own = zip(self.weights, self._of_own(known.own, signal), strict=True)
        for k, (numbers, own) in enumerate(of_own):
            total = jnp.zeros(self.part_shape(k), np.result_type(self.part_dtype(k), signal.dtype))
            if own is not None:
                total = total + own
            if known.left is not None and known.right is not None:
                total = total + _product(_product(signal, known.left), known.right[k])
            for n in numbers:
                site, c, x = self.graph.sites[n], drives[n], data[n]
                if x is not None:
                    c = site.rule.weight_gradient_sum(x[None], c[None].astype(total.dtype))
                total = total + c
            found.append(total)
        return found

    def _of_own(self, traces: list[OfSite], signal: Float[Array, " n"]) -> list[Array | None]:
        """What a signal on the state contracts the traces by position to, for each weight."""
        sites, every = self.positions.sites, []
        for numbers in self.own:
            terms = [_contract(sites[n], traces[n], self.places[n], signal) for n in numbers]
            every.append(functools.reduce(jnp.add, terms) if terms else None)
        return every


def _contract(
    site: Site, traces: OfSite, places: list[list[np.ndarray]], signal: Float[Array, " n"]
) -> Array:
    at = [jnp.where(e >= 0, signal[np.maximum(e, 0)], 0) for place in places for e in place]
    of_slots = traces.drive if isinstance(traces, Passing) else traces
    entries = [e for slots in of_slots for e in slots]
    if isinstance(traces, Passing):
        c = functools.reduce(jnp.add, [a * f for a, f in zip(at, entries, strict=True)])
        return site.rule.weight_gradient_sum(traces.data[0][None].astype(c.dtype), c[None])
    terms = [site.rule.at_entries(a) * e for a, e in zip(at, entries, strict=True)]
    return site.rule.collect(functools.reduce(jnp.add, terms))


def _elements(graph: CellGraph, place: Place, slot: int) -> Int[np.ndarray, "*y"]:
    """The number, among all state elements of one sample, of a slot at each element of y."""
    of = graph.groups[place.group].slots[slot]
    first = sum(graph.sample_size(k) for k in graph.hidden[: graph.hidden.index(of.leaf)])
    elements, positions = as_array(of.elements), place.positions
    if positions is None:
        positions = np.arange(len(elements)).reshape(place.shape)
    found = np.where(positions >= 0, elements[np.maximum(positions, 0)], -1)
    return np.where(found >= 0, first + found, -1)


def _entry_axis(graph: CellGraph, site: Site) -> BatchAxis | None:
    """Where the samples lie in the trace of a site: the axis that grows with y's."""
    axis = graph.y_axis(site)
    if axis is None:
        return None
    shape = lambda more: tuple(n + more * (d == axis.dim) for d, n in enumerate(site.y.shape))
    of = lambda more: jax.ShapeDtypeStruct(shape(more), site.y.dtype)
    now, grown = (jax.eval_shape(site.rule.at_entries, of(more)).shape for more in (0, 1))
    return axis.at(next(d for d, (a, b) in enumerate(zip(now, grown, strict=True)) if a != b))


def _apart(axis: BatchAxis | None, value: Array, lead: int = 0) -> Array:
    return jnp.expand_dims(value, lead) if axis is None else axis.apart(value, lead)


def squared_norm(parts: PyTree[Array]) -> Float[Array, ""]:
    """The sum of the squared magnitudes of all numbers of a tree."""
    return sum((jnp.sum(jnp.abs(v) ** 2) for v in jax.tree.leaves(parts)), jnp.zeros(()))
