"""Along which axes arrays may be divided between devices: where samples lie, and where neurons.

The samples are those of the batch analysis. The neurons of a weight operation are an axis of its y
that runs along one of its weight (the columns of a matrix, the channels of a convolution). They are
followed to the parameters through the prelude, and to the state through the positions of the site's
places. Nothing is read off equal sizes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..jaxpr import Atom, Var
from ._batch_axis import BatchAxis
from ._batch_rules import follow
from ._sample import Samples

if TYPE_CHECKING:
    from ._graph import CellGraph, Place, Site


class Axes(NamedTuple):
    """The axes of an array along which samples and neurons lie; None for none.

    >>> from braintrace import rules
    >>> rules.Axes(samples=0, neurons=2).behind(1)
    Axes(samples=1, neurons=3)
    """

    samples: int | None = None
    neurons: int | None = None

    def behind(self, lead: int) -> "Axes":
        """With `lead` axes in front."""
        return Axes(*(None if k is None else k + lead for k in self))


def axes_of_y(graph: "CellGraph", site: "Site") -> Axes:
    """Of a site's y."""
    pair = _neurons(graph, site)
    return Axes(whole_samples(graph.y_axis(site)), None if pair is None else pair[0])


def axes_of_entries(graph: "CellGraph", site: "Site") -> Axes:
    """Of the trace of one state slot."""
    entry = lambda axis: None if axis is None else site.rule.entry_axis(axis)
    return Axes(*map(entry, axes_of_y(graph, site)))


def axes_of_data(graph: "CellGraph", site: "Site") -> Axes:
    """Of a site's represented data, whose neurons are those that it comes from."""
    samples = whole_samples(graph.data_axis(site))
    if not site.data:  # ones, shaped as y
        return Axes(samples, axes_of_y(graph, site).neurons)
    [data] = site.data if len(site.data) == 1 else [None]
    axis = graph.neurons_carried_on.get(data) if site.rule.keeps_data else None
    return Axes(samples, axis)


def axes_of_part(graph: "CellGraph", site: "Site", lead: int) -> Axes:
    """Of an array with the samples in front, `lead` - 1 further axes, and the part of a site's
    weight that a sample meets.
    """
    pair, own = _neurons(graph, site), graph.weight_axis(site)
    neurons = None if pair is None or own is not None else pair[1]
    return Axes(0, None if neurons is None else lead + neurons)


def axes_of_params(graph: "CellGraph") -> list[Axes]:
    """Of each parameter: the axis that the prelude carries on to the neurons of a site."""
    return [_of_param(graph, number, v) for number, v in enumerate(graph.params)]


def axes_of_carry(graph: "CellGraph") -> list[Axes]:
    """Of each leaf of the engine's carry."""
    samples = [whole_samples(graph.batch_axis(v)) for v in graph.carry]
    return [Axes(*pair) for pair in zip(samples, graph.neurons_of_leaves, strict=True)]


def axes_of_others(graph: "CellGraph", atoms: Sequence[Atom]) -> list[Axes]:
    """Of inputs and outputs: their samples alone."""
    return [Axes(whole_samples(graph.batch_axis(v))) for v in atoms]


def neurons_of_leaves(graph: "CellGraph") -> list[int | None]:
    """For each leaf of the engine's carry, the axis of its neurons."""
    return [_of_leaf(graph, leaf) for leaf in range(len(graph.carry))]


def neurons_carried_on(graph: "CellGraph") -> dict[Atom | None, int]:
    """The axis of the neurons of what a step makes of its old state alone, neuron by neuron."""
    found: dict[Atom | None, int] = {}
    for v, axis in zip(graph.carry, graph.neurons_of_leaves, strict=True):
        if axis is not None:
            samples = Samples({v: BatchAxis(axis, v.shape[axis])})
            for e in graph.step:
                follow(samples, e)
            found |= {u: to.dim for u, to in samples.axes.items() if to.is_plain}
    return found


def whole_samples(axis: BatchAxis | None) -> int | None:
    """The axis, if equal parts of it are whole samples."""
    return None if axis is None or axis.outer > 1 else axis.dim


def _neurons(graph: "CellGraph", site: "Site") -> tuple[int, int | None] | None:
    """The axis of y, and that of the weight along it."""
    samples = graph.y_axis(site)
    pairs = [p for p in site.rule.neurons() if samples is None or p[0] != samples.dim]
    return pairs[-1] if pairs else None


def _of_param(graph: "CellGraph", number: int, v: Var) -> Axes:
    sites = [s for s in graph.sites if number in s.params]
    wanted = {(s.weight, p[1]) for s in sites if (p := _neurons(graph, s)) and p[1] is not None}
    for axis in reversed(range(len(v.shape))):
        samples = Samples({v: BatchAxis(axis, v.shape[axis])})
        for e in graph.prelude:
            follow(samples, e)
        if any((w, to.dim) in wanted and to.is_plain for w, to in samples.axes.items()):
            return Axes(neurons=axis)
    return Axes()


def _of_leaf(graph: "CellGraph", leaf: int) -> int | None:
    """The axis of a hidden leaf along which the neurons of a site that acts on its group lie."""
    number = graph.group_of.get(leaf)
    if number is None:
        return None
    group, samples = graph.groups[number], graph.batch_axis(graph.carry[leaf])
    shape = graph.carry[leaf].shape
    sample = shape if samples is None else samples.sample_shape(shape)
    in_order = any(s.leaf == leaf and s.in_order for s in group.slots)
    if sample != group.shape or not (in_order or leaf == group.leaves[0]):
        return None  # its elements are not the positions in order
    found = {
        axis
        for site in graph.sites
        for place in site.places
        if place.group == number
        and (pair := _neurons(graph, site)) is not None
        and (axis := _moved_along(place, pair[0], group.shape)) is not None
    }
    return found.pop() if len(found) == 1 else None


def _moved_along(place: "Place", axis: int, shape: tuple[int, ...]) -> int | None:
    """The axis of a group's positions that a step along `axis` of y moves on, if it is one."""
    positions = place.positions
    if positions is None:
        positions = np.arange(np.prod(place.shape, dtype=int)).reshape(place.shape)
    line = np.moveaxis(positions, axis, 0).reshape(positions.shape[axis], -1)[:, 0]
    line = line[line >= 0]  # y may not act on the group everywhere
    if len(line) < 2:
        return None
    along = np.array(np.unravel_index(line, shape)).T
    moves = np.flatnonzero((along != along[0]).any(0))
    return int(moves[0]) if len(moves) == 1 else None
