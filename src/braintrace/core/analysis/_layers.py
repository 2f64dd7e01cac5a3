"""The graph of a cell for algorithms that are exact within a layer."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from .._errors import CompilationError
from ..jaxpr import Equation, Var, is_collective
from ..sites import OperandRule, site_rule
from ._certificate import certified
from ._dependence import Edge, dependence, depends, reach
from ._graph import CellGraph, LayerPlan, Site, StateGroup, new_leaves
from ._untraced import stopped_edges, untraced_values


def with_layers(graph: CellGraph, together: bool = False, places: bool = True) -> CellGraph:
    """`graph` with its layers, a site wherever a parameter meets data on the way to a layer's
    state, and its certificate. `together`: all that is carried is one layer. `places`:
    whether the sites of layers whose neurons do not move each other keep theirs.
    """
    graph = _with_all_carried(graph) if together else graph
    _check_samples(graph)
    plan = _plan(graph, together)
    located = places and all(graph.carry[k] in graph.labels for k in graph.hidden)
    local = _local_sites(dataclasses.replace(graph, layers=plan)) if located else {}
    sites, unsited, news = [], set(), set(new_leaves(graph).values())
    deps = dependence(graph.program.equations, graph.params, [graph.carry[k] for k in graph.hidden])
    stopped, untraced = stopped_edges(graph.step), untraced_values(graph)
    for e in graph.step:
        reached = reach(graph.step, e.outputs, stopped) & news
        if not reached:
            continue
        unsited |= {(e, k) for k, v in enumerate(e.inputs) if v in untraced}
        for k, v in deps.weights(e):
            rule = site_rule(e, k)
            site = Site((e, k), rule or OperandRule(e, k), v, deps.of(v), (), rule is not None)
            sites += [local.get((e, k), site)] if v not in untraced else []
    crossing = {edge for edge in graph.mixing if edge in stopped or _crosses(graph, plan, edge)}
    return certified(dataclasses.replace(graph, layers=plan, sites=tuple(sites)), crossing, unsited)


def _with_all_carried(graph: CellGraph) -> CellGraph:
    """`graph` with what is carried through other positions, a delay line say, as hidden state."""
    first = len(graph.carry) - len(graph.extra)
    inert = {first + k for k, leaf in enumerate(graph.extra) if leaf.inert}
    more = tuple(
        k
        for k, v in enumerate(graph.carry)
        if v.differentiable and k not in inert and k not in graph.hidden
    )
    none = np.zeros((0, 0), bool)
    groups = [
        StateGroup((), graph.sample_size(k), (graph.sample_size(k),), (k,), none) for k in more
    ]
    hidden, groups = (*graph.hidden, *more), (*graph.groups, *groups)
    return dataclasses.replace(graph, hidden=hidden, groups=groups)


def _check_samples(graph: CellGraph) -> None:
    """The influence on a layer is kept sample by sample, so samples must stay apart. What comes
    to them from a value that they share is theirs.
    """
    edges = [] if graph.batch is None else graph.batch.meetings
    mixed = _mixed(graph)
    meetings = [e for e, k in edges if graph.batch_axis(e.inputs[k]) or e.inputs[k] in mixed]
    moving = reach(graph.step, [*graph.params, *(graph.carry[k] for k in graph.hidden)])
    collective = [e for e in graph.step if is_collective(e) and moving.intersection(e.inputs)]
    if not (meetings or collective):
        return
    equation = [*meetings, *collective][0]
    among = f"a batch of {graph.batch_size}" if meetings else f"the axis {equation.params['axes']}"
    raise CompilationError(
        "Samples meet in the step, so that no sample has an influence of its own.",
        got=f"{equation.name}, which combines samples of {among}",
        expected="a step that keeps samples apart",
        do="pass batch=None to take the whole batch for one sample, or use D_RTRL",
        at=equation.source,
    )


def _mixed(graph: CellGraph) -> set[Var]:
    """What comes from a state that is shared, as far as is known, and takes in samples: they meet
    where it is read.
    """
    ends = list(zip(graph.carry, graph.new_carry, strict=True))
    shared = [(old, new) for old, new in ends if graph.batch_axis(old) is None]
    start = {old for old, new in shared if graph.batch_axis(new) is not None}
    while True:
        reached = reach(graph.step, start)
        more = {old for old, new in shared if new in reached} - start
        if not more:
            return reached
        start |= more


def fed_layers(graph: CellGraph, site: Site) -> list[int]:
    """The layers whose state the site moves at its own step without passing through another
    layer.
    """
    assert graph.layers is not None
    found, layer_of = [], graph.layers.layer_of.items()
    for layer, leaves in enumerate(graph.layers.leaves):
        others = {v for v, k in layer_of if k != layer}
        reached = depends(graph.step, site.end.outputs, others)
        if any(graph.new_carry[k] in reached for k in leaves):
            found.append(layer)
    return found


def moved_leaves(graph: CellGraph) -> set[int]:
    """The hidden leaves that parameters move, at a step or at a later one."""
    news, found = new_leaves(graph), set[int]()
    start = {v for site in graph.sites for v in site.end.outputs}
    while True:
        reached = reach(graph.step, start)
        more = {k for k, v in news.items() if v in reached} - found
        if not more:
            return found
        found |= more
        start |= {graph.carry[k] for k in more}


def _local_sites(graph: CellGraph) -> dict[Edge, Site]:
    """The sites that move layers without coupling between neurons only: there a position's own
    state is the whole influence.
    """
    assert graph.layers is not None
    layer_of = {g: k for k, layer in enumerate(graph.layers.layers) for g in layer}
    found = {}
    for site in graph.sites:
        layers = {layer_of[p.group] for p in site.places}
        news = {graph.new_carry[k] for layer in layers for k in graph.layers.leaves[layer]}
        olds = [graph.carry[k] for layer in layers for k in graph.layers.leaves[layer]]
        moved = reach(graph.step, [*olds, *site.end.outputs])
        coupled = any(
            e.inputs[k] in moved and news & reach(graph.step, e.outputs) for e, k in graph.mixing
        )
        if layers and not coupled and set(fed_layers(graph, site)) == layers:
            found[site.edge] = site
    return found


def _plan(graph: CellGraph, together: bool) -> LayerPlan:
    n = len(graph.groups)
    links = np.eye(n, dtype=bool) | together  # whether a group moves another, now or later
    for g, group in enumerate(graph.groups):
        reached = reach(graph.step, [graph.carry[k] for k in group.leaves])
        for k, other in graph.group_of.items():
            links[g, other] |= graph.new_carry[k] in reached
    for via in range(n):
        links |= links[:, via : via + 1] & links[via]
    first = [int(np.argmax(row)) for row in links & links.T]
    order = list(dict.fromkeys(first))
    layer = [order.index(c) for c in first]
    of_leaf = {k: layer[graph.group_of[k]] for k in graph.hidden}
    numbers = range(len(order))
    return LayerPlan(
        layers=tuple(frozenset(g for g, k in enumerate(layer) if k == n) for n in numbers),
        leaves=tuple(tuple(k for k, number in of_leaf.items() if number == n) for n in numbers),
        leaf_layer={graph.carry[k]: number for k, number in of_leaf.items()},
        layer_of=_layer_of(graph, of_leaf),
    )


def _layer_of(graph: CellGraph, of_leaf: Mapping[int, int]) -> dict[Var, int]:
    """The layer of each labelled variable of the step: that of the hidden element that its first
    labelled element goes to.
    """
    ends = np.cumsum([graph.sample_size(k) for k in graph.hidden])
    found = {}
    for v, labels in graph.labels.items():
        first = labels.start if isinstance(labels, range) else next(iter(labels[labels >= 0]), None)
        if first is not None and v not in graph.carry:
            leaf = graph.hidden[int(np.searchsorted(ends, first, side="right"))]
            found[v] = of_leaf[leaf]
    return found


def _crosses(graph: CellGraph, plan: LayerPlan, edge: tuple[Equation, int]) -> bool:
    """Whether a mixing edge brings another layer's activity into a layer."""
    equation, k = edge
    target = next((plan.layer_of[v] for v in equation.outputs if v in plan.layer_of), None)
    values = (plan.leaf_layer | plan.layer_of).items()
    return any(
        equation.inputs[k] in reach(graph.step, [v for v, layer in values if layer == number])
        for number in range(len(plan.layers))
        if number != target
    )
