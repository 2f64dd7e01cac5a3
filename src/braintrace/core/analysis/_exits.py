"""Exits: where a state group's activity leaves for a readout, for another group, or back to itself.

An exit edge is an operand of a mixing equation (or of a weight operation) that is computed position
by position from state groups: from one, or from several whose activities are joined on the way (a
concatenation, say), and then it is an exit of each. What the equation's result reaches without
passing another exit edge says what kind of exit it is.
"""

import dataclasses
import enum
from collections.abc import Collection, Sequence

from .._compat import is_key
from .._errors import CompilationError
from ..jaxpr import PARTS, Atom, Equation, Var, keeps_activity, variables
from ._dependence import Edge, depends, passes_derivative, reach
from ._graph import CellGraph
from ._influence import influences

Origins = dict[Atom, dict[int, frozenset[Var]]]


class ExitKind(enum.StrEnum):
    """Who consumes the activity.

    >>> from braintrace import rules
    >>> [str(kind) for kind in rules.ExitKind]
    ['readout', 'forward', 'recurrent']
    """

    READOUT = "readout"  # outputs, and groups that feed nobody
    FORWARD = "forward"  # another group, which feeds others in turn
    RECURRENT = "recurrent"  # the group itself


@dataclasses.dataclass(frozen=True, eq=False)
class Exit:
    """An exit edge with its operand, one of its source groups, and the groups that its consumer
    feeds.

    >>> from braintrace import rules
    >>> list(rules.Exit.__dataclass_fields__)
    ['edge', 'variable', 'group', 'kind', 'feeds']
    """

    edge: Edge
    variable: Var
    group: int
    kind: ExitKind
    feeds: frozenset[int]


def find_exits(graph: CellGraph) -> list[Exit]:
    """All exits, in the order of the program."""
    origins = _origins(graph, frozenset(), {*graph.group_of.values()})
    operations = {s.equation for s in graph.sites if s.is_operation}
    edges = [
        (e, k)
        for e in graph.step
        if passes_derivative(e)
        for kept in [set() if e in operations else _positional(graph, e)]
        for k, v in enumerate(e.inputs)
        if v in origins and k not in kept
    ]
    blocked = set(edges)
    sources = {g for e, k in edges for g in origins[e.inputs[k]]}
    outs = set(variables(graph.outs))
    found = []
    for e, k in edges:
        v = e.inputs[k]
        assert isinstance(v, Var)
        reached = reach(graph.step, e.outputs, blocked)
        feeds = frozenset(
            g for leaf, g in graph.group_of.items() if graph.new_carry[leaf] in reached
        )
        reads_out = reached & outs and not feeds & sources
        other = ExitKind.READOUT if reads_out else ExitKind.FORWARD
        for g in origins[v]:
            found.append(Exit((e, k), v, g, ExitKind.RECURRENT if g in feeds else other, feeds))
    return found


def activities(graph: CellGraph, exits: Sequence[Exit], outputs: bool = False) -> dict[int, Var]:
    """The activity of each group that others read; with `outputs` also of those that the step
    returns as they are.

    It is the variable through which all that others read of the group passes, with what moves its
    elements or scales them taken off: `z` where they read `2 z`, `z` and `flip(z)`, or a
    concatenation of z with something else. What takes a part of an array is taken off only where
    different parts are read, and the activity of the step before, which groups that feed each other
    read, is no other one. A group that is read at several such variables (a spike and a potential)
    has no activity, and neither has one that no parameter ever acts on (a filter of the input, a
    detached refractory current). In the order in which the program reads them.
    """
    feeds, learning = {(x.group, g) for x in exits for g in x.feeds}, _learning(graph)
    forward = [x for x in exits if x.kind is not ExitKind.RECURRENT and x.group in learning]
    again = [
        x
        for x in forward
        if x.variable not in graph.after and any((g, x.group) in feeds for g in x.feeds)
    ]
    direct = {x.group for x in forward if x not in again}
    read: dict[int, list[tuple[Var, str]]] = {}  # with the line that reads it
    for x in forward:
        if x not in again or x.group not in direct:
            read.setdefault(x.group, []).append((x.variable, x.edge[0].source))
    returned = _origins(graph, frozenset(), learning) if outputs else {}
    for out in variables(graph.outs):
        for g in returned.get(out, ()):
            read.setdefault(g, []).append((out, ""))
    chosen: dict[int, Var] = {}
    for parts in (frozenset(), PARTS):
        origins = _origins(graph, parts, learning) if read else {}
        for g, of in read.items():
            found = frozenset().union(*(origins[v][g] for v, _ in of))
            if len(found) == 1:
                chosen.setdefault(g, *found)
    for g, [(_, source), *_] in read.items():
        if g not in chosen:
            names = [graph.leaf_paths[k] for k in graph.groups[g].leaves]
            raise CompilationError(
                "A state group has no one activity.",
                got=f"several variables made from {', '.join(names)} are read by others",
                expected="one activity per group, read by all that read the group",
                do="read the group in one place, or use D_RTRL or EProp without firing_rate",
                at=source,
            )
    return {g: chosen[g] for g in read}


def joined_at(graph: CellGraph, exits: Sequence[Exit]) -> dict[Exit, Var]:
    """What each exit reads of its own group: the one variable of the group that is moved, scaled
    and joined with others on the way to its operand; the operand where there are several.
    """
    origins = _origins(graph, PARTS, {*graph.group_of.values()})
    of_group = {x: origins[x.variable][x.group] for x in exits}
    return {x: next(iter(v)) if len(v) == 1 else x.variable for x, v in of_group.items()}


def _learning(graph: CellGraph) -> set[int]:
    """The groups with a state that a derivative from a parameter reaches, now or later; all groups
    of a reservoir, where there are none.
    """
    start, reached = set(graph.params), set[Var]()
    while not start <= reached:
        reached = reach([*graph.prelude, *graph.step], start | reached)
        start = {graph.carry[k] for k in graph.group_of if graph.new_carry[k] in reached}
    found = {g for k, g in graph.group_of.items() if graph.new_carry[k] in reached}
    return found or {*graph.group_of.values()}


def _origins(graph: CellGraph, parts: Collection[object], groups: Collection[int]) -> Origins:
    """For the variables computed position by position from the state of `groups`, old or new: the
    groups that they come from, and for each the variables that they move or scale, `parts` taken
    included.
    """
    olds = [(graph.carry[k], g) for k, g in graph.group_of.items() if g in groups]
    origins: Origins = {v: {g: frozenset((v,))} for v, g in olds}
    states = {graph.new_carry[k]: g for k, g in graph.group_of.items()}
    state = depends(graph.step, [v for v in graph.carry if not is_key(v.dtype)])
    makes_state = _positional_makers(graph, states)
    for e in graph.step:
        # new values of a state that keeps nothing of the old one by itself
        new = [v for v in e.outputs if states.get(v) in groups]
        origins |= {v: {states[v]: frozenset((v,))} for v in new}
        if not passes_derivative(e) or not any(v in origins for v in e.inputs):
            continue
        positional = _positional(graph, e)
        operands = [
            (k, origins[v]) for k, v in enumerate(e.inputs) if v in origins and k in positional
        ]
        sources = dict.fromkeys(g for _, of in operands for g in of)
        variables = sum(isinstance(v, Var) for v in e.inputs)
        driven = e.outputs[0] in makes_state and len(operands) < variables
        kept = not driven and all(
            keeps_activity(e, k, state) or e.primitive in parts for k, _ in operands
        )
        for v in e.outputs if sources else ():
            if not v.differentiable:
                continue
            origins[v] = {}
            for g in sources:
                below = frozenset().union(*(of.get(g, frozenset()) for _, of in operands))
                joined = len(sources) > 1 or (kept and len(below) == 1 and v not in states)
                origins[v][g] = below if joined else frozenset((v,))
    return origins


def _positional_makers(graph: CellGraph, states: Collection[object]) -> set[object]:
    """The variables from which new states are computed position by position."""
    making = set(states)
    for e in reversed(graph.step):
        if any(v in making for v in e.outputs):
            making.update(e.inputs[k] for k in _positional(graph, e))
    return making


def _positional(graph: CellGraph, e: Equation) -> set[int]:
    """The operands that an equation does not mix."""
    found = enumerate(influences(e))
    return {k for k, influence in found if influence is not None and (e, k) not in graph.mixing}
