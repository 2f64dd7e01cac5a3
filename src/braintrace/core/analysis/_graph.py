"""`CellGraph`: everything that is known about a cell before any number is computed. Plain data."""

import dataclasses
import enum
import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..jaxpr import Atom, Equation, Program, Var, reader
from ..sites import SiteRule
from ._dependence import Edge
from ._report import ParameterReport, parameter_reports, table, trace_bytes
from ._shared import first_of_sum


@dataclasses.dataclass(frozen=True, eq=False)
class ExtraLeaf:
    """A leaf that an algorithm adds to the carry: a filter, a feedback weight, a signal that the
    driver sets at each step.

    An inert leaf carries no derivative.
    """

    name: str
    initial: np.ndarray
    inert: bool


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
    leaf, -1 for none.
    """

    leaf: int
    elements: np.ndarray

    @property
    def whole(self) -> bool:
        """Whether the slot is the whole leaf in its own order."""
        return bool((self.elements == np.arange(self.elements.size)).all())


@dataclasses.dataclass(frozen=True, eq=False)
class StateGroup:
    """Hidden leaves coupled position by position. Only slots that a later step reads without mixing
    are kept.
    """

    slots: tuple[Slot, ...]
    positions: int
    shape: tuple[int, ...]  # of the leaf that numbers the positions
    leaves: tuple[int, ...]  # every leaf of the group, also those without a slot
    coupling: (
        np.ndarray
    )  # (S, S) bool: [s, q] says whether the new slot s depends on the old slot q inside a position


@dataclasses.dataclass(frozen=True, eq=False)
class Place:
    """A site's part in one group: `positions` has the shape of y, -1 where y does not act on the
    group.

    `direct` holds the slots that y moves at its own step, `slots` those that can ever hold a trace
    of it.
    """

    group: int
    positions: np.ndarray
    slots: tuple[int, ...]
    direct: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Site:
    """Where a prelude variable (a weight, after masks, casts and the like) meets data at a region."""

    edge: Edge
    rule: SiteRule
    weight: Var
    params: frozenset[int]
    places: tuple[Place, ...]
    is_operation: bool  # a weight operation, with y its output; otherwise y is the operand itself
    chain: tuple[
        Equation, ...
    ] = ()  # linear operations that its output goes through on its way to y

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
    labels: dict[Var, np.ndarray]
    mixing: frozenset[Edge]
    old: frozenset[Var]  # derivative reaches it from the old hidden state
    after: frozenset[Var]  # derivative reaches it from an entry of this step
    hidden: tuple[int, ...]  # carry leaves that are hidden state
    groups: tuple[StateGroup, ...]
    sites: tuple[Site, ...]
    parameters: tuple[ParameterRow, ...]
    leaf_paths: tuple[str, ...]
    lanes: int | None  # size of the batch axis, axis 0 of the carry's leaves
    resets: bool  # whether the last input marks the lanes that start afresh
    extra: tuple[ExtraLeaf, ...]  # leaves that the algorithm added, at the end of `carry`
    marks: Mapping[str, frozenset[int]]  # leaves that the algorithm treats apart
    layers: LayerPlan | None = None  # set for algorithms that keep the recurrence within a layer

    def structure(self, ready: Sequence[Any]) -> list[list[Any]]:
        """For each site, the values that its rule needs of the prelude's results: the indices of a
        sparse matrix, say.
        """
        read = reader(dict(zip(self.prelude_results, ready, strict=True)))
        return [[] if s.rule.is_bound else [read(v) for v in s.rule.structure] for s in self.sites]

    def bound(self, structure: Sequence[Sequence[Any]]) -> "CellGraph":
        """The graph whose site rules have the values of their `structure`."""
        if not any(structure):
            return self
        sites = [
            replace(s, rule=s.rule.bound(v)) if v else s
            for s, v in zip(self.sites, structure, strict=True)
        ]
        return replace(self, sites=tuple(sites))

    @functools.cached_property
    def first_of_sum(self) -> tuple[int, ...]:
        """For each site, the number of the first site whose y has the same derivative."""
        return first_of_sum(self)

    def lane_axis(self, site: Site) -> int | None:
        """The axis of a site's y that runs along the lanes, or None."""
        if self.lanes is None:
            return None
        for place in site.places:
            group = self.groups[place.group]
            if group.shape and group.shape[0] == self.lanes:
                return _axis_along(
                    _quotient(place.positions, group.positions // self.lanes), self.lanes
                )
        made = site.equation.outputs[0]
        like = (
            made if not site.is_operation and made.shape == site.y.shape else site.y
        )  # a parameter itself has no labels
        if (labels := self.labels.get(like)) is not None:
            return _axis_along(self._element_lanes()[labels].reshape(site.y.shape), self.lanes)
        shape = site.y.shape  # not labelled: the axis that runs along axis 0 of the data
        return next(
            (k for k, n in enumerate(shape) if n == self.lanes and site.rule.lane_axis(k) == 0),
            None,
        )

    def leaf_axis(self, leaf: int) -> int | None:
        """The axis of a leaf of the carry that runs along the batch, or None."""
        shape = self.carry[leaf].shape
        return 0 if self.lanes is not None and shape and shape[0] == self.lanes else None

    def _element_lanes(self) -> np.ndarray:
        """The lane of each hidden element, -1 for none; the last entry stands for the label -1."""
        assert self.lanes is not None
        lanes = []
        for k in self.hidden:
            shape, size = self.carry[k].shape, self.carry[k].size
            laned = bool(shape) and shape[0] == self.lanes
            lanes.append(
                np.repeat(np.arange(self.lanes), size // self.lanes) if laned else np.full(size, -1)
            )
        return np.concatenate([*lanes, [-1]])

    def exactness(self, path: str) -> Exactness:
        """The certificate of the parameter at `path`."""
        for row in self.parameters:
            if row.path == path:
                return row.exactness
        raise KeyError(
            f"no parameter {path!r}; the parameters are {[r.path for r in self.parameters]}"
        )

    def reports(self, carrier: Any = None) -> list[ParameterReport]:
        """One for each parameter, with its sites; with `carrier`, the bytes of their traces."""
        return parameter_reports(self, carrier)

    def trace_bytes(self, carrier: Any) -> list[int]:
        """For each site, the bytes of the traces that `carrier` keeps for it."""
        return trace_bytes(self, carrier)

    def table(self, carrier: Any = None, title: str = "Cell") -> str:
        """The report as text; with `carrier`, also the bytes of the traces."""
        return table(self, carrier, title)

    def __str__(self) -> str:
        return self.table()


def _quotient(positions: np.ndarray, per_lane: int) -> np.ndarray:
    return np.where(positions >= 0, positions // per_lane, -1)


def _axis_along(lane: np.ndarray, lanes: int) -> int | None:
    """The axis of `lane`, an array of lane numbers (-1: none), along which it counts the lanes."""
    for axis in range(lane.ndim):
        along = np.arange(lane.shape[axis]).reshape(
            [-1 if k == axis else 1 for k in range(lane.ndim)]
        )
        if lane.shape[axis] == lanes and ((lane == along) | (lane < 0)).all():
            return axis
    return None
