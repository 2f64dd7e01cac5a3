"""`CellGraph`: everything that is known about a cell before any number is computed. Plain data."""

import dataclasses
import enum
import functools
from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Array, Bool, Num

from ..jaxpr import Atom, Equation, Program, Var, reader
from ..sites import SiteRule
from . import _division, _report, _shared
from ._batch import Batch, BatchClaim
from ._batch_axis import BatchAxis
from ._dependence import Edge
from ._elements import Elements

if TYPE_CHECKING:
    from ._structure import Structure


@dataclasses.dataclass(frozen=True, eq=False)
class ExtraLeaf:
    """A leaf that an algorithm adds to the carry: a filter, a feedback weight, a signal that the
    driver sets at each step.

    An inert leaf carries no derivative; a shared one is that of all samples, and no reset changes
    it.
    """

    name: str
    initial: np.ndarray
    inert: bool
    shared: bool = False


class Exactness(enum.StrEnum):
    """How the online gradient of a parameter relates to that of BPTT."""

    EXACT = "exact"
    APPROXIMATE = "approximate"
    INSTANTANEOUS = "instantaneous"
    UNUSED = "unused"  # the step does not read the parameter
    FROZEN = "frozen"  # not trained


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """One state variable of a group: `elements[p]` is its element at position p in the flattened
    leaf of one sample, -1 for none.
    """

    leaf: int
    elements: Elements

    @property
    def in_order(self) -> bool:
        """Whether the slot is the whole leaf in its own order."""
        return isinstance(self.elements, range) and self.elements.start == 0


@dataclasses.dataclass(frozen=True, eq=False)
class StateGroup:
    """Hidden leaves coupled position by position. Only slots that a later step reads without mixing
    are kept.
    """

    slots: tuple[Slot, ...]
    positions: int  # of one sample
    shape: tuple[int, ...]  # for one sample, of the leaf that numbers the positions
    leaves: tuple[int, ...]  # every leaf of the group, also those without a slot
    # (S, S) bool: [s, q] says whether the new slot s depends on the old slot q inside a position
    coupling: Bool[np.ndarray, "S S"]


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A site's part in one group: `positions` has the shape of y for one sample, -1 where y does
    not act on the group; None where its elements are the positions, in order.

    `direct` holds the slots that y moves at its own step, `slots` those that can ever hold a trace
    of it.

    >>> import braintrace, jax.numpy as jnp
    >>> from braintrace import rules
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h)
    >>> [place] = learner.graph.sites[0].places
    >>> isinstance(place, rules.Place), place.group, place.slots
    (True, 0, (0,))
    """

    group: int
    positions: np.ndarray | None
    slots: tuple[int, ...]
    direct: tuple[int, ...]
    shape: tuple[int, ...]
    axis: BatchAxis | None  # of y

    @functools.cached_property
    def acts(self) -> np.ndarray | None:
        """Where y acts on the group, broadcastable to y; None for everywhere."""
        if self.positions is None or (self.positions >= 0).all():
            return None
        acts = self.positions >= 0
        return acts if self.axis is None else self.axis.of_one(acts)


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """Where a prelude variable (a weight, after masks, casts and the like) meets data at a
    region.

    >>> import braintrace, jax.numpy as jnp
    >>> from braintrace import rules
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h)
    >>> [site] = learner.graph.sites
    >>> isinstance(site, rules.Site), site.weight.shape, site.y.shape, site.trace_shape
    (True, (2, 3), (1, 3), (1, 2, 3))
    """

    edge: Edge
    rule: SiteRule
    weight: Var
    params: frozenset[int]
    places: tuple[Place, ...]
    is_operation: bool  # a weight operation, with y its output; otherwise y is the operand itself
    # linear operations that its output goes through on its way to y
    chain: tuple[Equation, ...] = ()

    @property
    def equation(self) -> Equation:
        return self.edge[0]

    @property
    def y(self) -> Var:
        return self.end.outputs[0] if self.is_operation else self.weight

    @property
    def end(self) -> Equation:
        """The equation whose output is y: the weight operation, or the last of its chain."""
        return self.chain[-1] if self.chain else self.equation

    @property
    def data(self) -> list[Atom]:
        """The operands of a weight operation that its weight meets."""
        return [self.equation.inputs[k] for k in self.rule.data]

    @property
    def trace_shape(self) -> tuple[int, ...]:
        return self.rule.trace_shape


@dataclasses.dataclass(frozen=True)
class DroppedPath:
    """A path from the state, or from a parameter, to a later state that the online gradient leaves
    out.
    """

    # 'recurrent', 'cross-layer', 'carried' (through a value that is not hidden state) or 'readout'
    # (through a derivative of the user's own that is not linear)
    kind: str
    operation: str
    source: str


@dataclasses.dataclass(frozen=True)
class ParameterRow:
    """What the compiler states about one parameter."""

    path: str
    shape: tuple[int, ...]
    exactness: Exactness
    sites: tuple[int, ...]  # numbers of sites
    reason: str
    dropped: tuple[DroppedPath, ...]
    warnings: tuple[str, ...] = ()  # where the trace may be far from right


@dataclasses.dataclass(frozen=True, eq=False)
class LayerPlan:
    """Which groups, leaves and variables belong to which layer; layers are sets of groups that feed
    each other.
    """

    layers: tuple[frozenset[int], ...]
    leaves: tuple[tuple[int, ...], ...]  # hidden leaves of each layer
    leaf_layer: dict[Var, int]  # of old leaves
    layer_of: dict[Var, int]  # of labelled variables of the step


@dataclasses.dataclass(frozen=True, eq=False)
class CellGraph:
    """The analysed cell. Leaves of parameters, carry and input are numbered in the order of their
    flattened trees.

    >>> import braintrace, jax.numpy as jnp
    >>> from braintrace import rules
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h)
    >>> isinstance(learner.graph, rules.CellGraph), len(learner.graph.sites)
    (True, 1)
    """

    program: Program
    params: Sequence[Var]
    carry: Sequence[Var]
    xs: Sequence[Var]
    prelude: Sequence[Equation]
    step: Sequence[Equation]
    new_carry: Sequence[Atom]
    outs: Sequence[Atom]
    prelude_results: Sequence[Var]  # prelude variables that the step reads
    labels: dict[Var, Elements]  # of one sample
    mixing: frozenset[Edge]
    old: Set[Atom]  # derivative reaches it from the old hidden state
    after: frozenset[Var]  # derivative reaches it from an entry of this step
    hidden: tuple[int, ...]  # carry leaves that are hidden state
    groups: tuple[StateGroup, ...]
    sites: tuple[Site, ...]
    parameters: tuple[ParameterRow, ...]
    leaf_paths: tuple[str, ...]
    claim: BatchClaim | None  # of the batch, by the user or by convention
    batch: Batch | None  # what of it is proven
    extra: tuple[ExtraLeaf, ...]  # leaves that the algorithm added, at the end of `carry`
    marks: Mapping[str, frozenset[int]]  # leaves that the algorithm treats apart
    # the hidden elements run by run, each with its group and its positions there (None: in order)
    placed: Sequence[tuple[range, int, np.ndarray | None]] = ()
    layers: LayerPlan | None = None  # set for algorithms that keep the recurrence within a layer
    # the same cell by position, for algorithms that need its sensitivities beside those of layers
    positions: "CellGraph | None" = None
    # for algorithms whose signal of a step reaches the old state through products, too
    one_hop: bool = False
    moves: "Structure | None" = None  # set for algorithms that leave some of its elements out

    def structure(self, ready: Sequence[jax.Array]) -> list[list[jax.Array]]:
        """For each site, the values that its rule needs of the prelude's results: the indices of a
        sparse matrix, say.
        """
        read = reader(dict(zip(self.prelude_results, ready, strict=True)))
        return [[] if s.rule.is_bound else [read(v) for v in s.rule.structure] for s in self.sites]

    def bound(self, structure: Sequence[Sequence[jax.Array]]) -> "CellGraph":
        """The graph whose site rules have the values of their `structure`."""
        if not any(structure):
            return self
        sites = [
            replace(s, rule=s.rule.bound(v)) if v else s
            for s, v in zip(self.sites, structure, strict=True)
        ]
        return replace(self, sites=tuple(sites))

    @functools.cached_property
    def group_of(self) -> dict[int, int]:
        """The group of each hidden leaf."""
        return {leaf: g for g, group in enumerate(self.groups) for leaf in group.leaves}

    first_of_sum = functools.cached_property(_shared.first_of_sum)
    drive_biases = functools.cached_property(_shared.drive_biases)
    neurons_of_leaves = functools.cached_property(_division.neurons_of_leaves)
    neurons_carried_on = functools.cached_property(_division.neurons_carried_on)

    @property
    def batch_size(self) -> int | None:
        """The size of the batch; None where there is none."""
        if self.claim is None or (self.batch is None and self.claim.size > 1):
            return None
        return self.claim.size

    @property
    def samples(self) -> int:
        """How many samples are known to stay apart; 1 where all there is counts as one sample."""
        return 1 if self.batch is None else self.batch.size

    def batch_axis(self, v: Atom) -> BatchAxis | None:
        """Where the samples lie in a variable."""
        return None if self.batch is None else self.batch.axes.get(v)

    def y_axis(self, site: Site) -> BatchAxis | None:
        """Where the samples lie in a site's y."""
        if self.batch is None:
            return None
        if site.is_operation:
            return self.batch.axes.get(site.y)
        return self.batch.operand(*site.edge)

    def data_axis(self, site: Site) -> BatchAxis | None:
        """Where the samples lie in the represented data of a site."""
        y = self.y_axis(site)
        dim = None if y is None else site.rule.lane_axis(y.dim)
        return None if y is None or dim is None else y.at(dim)

    def weight_axis(self, site: Site) -> BatchAxis | None:
        """Where the samples lie in a weight that has a part for each of them."""
        return None if self.batch is None else self.batch.aligned.get(site.edge)

    def leaf_axis(self, leaf: int) -> BatchAxis | None:
        """Where the samples lie in a leaf of the carry."""
        v = self.carry[leaf]
        if self.batch is not None or self.claim is None or self.claim.size > 1:
            return self.batch_axis(v)
        dim = self.claim.of_leaf(leaf, v.shape)  # a single sample needs no proof
        return None if dim is None else BatchAxis(dim, 1)

    def sample_size(self, leaf: int) -> int:
        """Elements of a leaf of the carry in one sample."""
        v = self.carry[leaf]
        return v.size if (axis := self.batch_axis(v)) is None else v.size // axis.size

    def apart(self, leaf: int, values: jax.Array, lead: int = 0) -> Num[Array, "... B N"]:
        """A leaf of the carry as (samples, elements of one), behind `lead` axes in front."""
        axis = self.batch_axis(self.carry[leaf])
        split = values if axis is None else axis.apart(values, lead)
        return split.reshape(*values.shape[:lead], 1 if axis is None else axis.size, -1)

    def together(self, leaf: int, values: Num[Array, "... B N"], lead: int = 0) -> jax.Array:
        """The inverse of `apart`."""
        v, front = self.carry[leaf], values.shape[:lead]
        axis = self.batch_axis(v)
        if axis is None:
            return values.reshape(*front, *v.shape)
        return axis.together(values.reshape(*front, axis.size, *axis.sample_shape(v.shape)), lead)

    def exactness(self, path: str) -> Exactness:
        """The certificate of the parameter at `path`."""
        known = {row.path: row.exactness for row in self.parameters}
        if path not in known:
            raise KeyError(f"no parameter {path!r}; the parameters are {list(known)}")
        return known[path]

    def reports(self, carrier: _report.Carrier | None = None) -> list[_report.ParameterReport]:
        """One for each parameter, with its sites; with `carrier`, the bytes of their traces."""
        return _report.parameter_reports(self, carrier)

    def trace_bytes(self, carrier: _report.Carrier) -> list[int]:
        """For each site, the bytes of the traces that `carrier` keeps for it."""
        return _report.trace_bytes(self, carrier)

    def table(self, carrier: _report.Carrier | None = None, title: str = "Cell") -> str:
        """The report as text; with `carrier`, also the bytes of the traces."""
        return _report.table(self, carrier, title)

    def __str__(self) -> str:
        return self.table()


def new_leaves(graph: CellGraph) -> dict[int, Var]:
    """The new variables of the hidden leaves."""
    return {k: v for k in graph.hidden if isinstance(v := graph.new_carry[k], Var)}
