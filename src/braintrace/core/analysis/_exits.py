"""Exits: where a state group's activity leaves for a readout, for another group, or back to itself.

An exit edge is an operand of a mixing equation (or of a weight operation) that is computed position
by position from a state group. What the equation's result reaches without passing another exit edge
says what kind of exit it is.
"""

import dataclasses
import enum

from ..jaxpr import Equation, Var
from ._dependence import Edge, passes_derivative, reach
from ._graph import CellGraph
from ._influence import influences


class ExitKind(enum.StrEnum):
    """Who consumes the activity."""

    READOUT = "readout"  # outputs, and groups that feed nobody
    FORWARD = "forward"  # another group, which feeds others in turn
    RECURRENT = "recurrent"  # the group itself


@dataclasses.dataclass(frozen=True, eq=False)
class Exit:
    """An exit edge, its variable, its source group, and the groups that its consumer feeds."""

    edge: Edge
    variable: Var
    group: int
    kind: ExitKind
    feeds: frozenset[int]


def find_exits(graph: CellGraph) -> list[Exit]:
    """All exit edges, in the order of the program."""
    source = _positional_sources(graph)
    edges: list[tuple[Edge, Var, int]] = []
    for e in graph.step:
        if not passes_derivative(e):
            continue
        weights = [s for s in graph.sites if s.equation is e and s.is_operation]
        for k, (v, influence) in enumerate(zip(e.inputs, influences(e), strict=True)):
            if isinstance(v, Var) and v in source and (influence is None or weights):
                edges.append(((e, k), v, source[v]))
    blocked = {edge for edge, _, _ in edges}
    outs = {v for v in graph.outs if isinstance(v, Var)}
    leaf_group = {leaf: g for g, group in enumerate(graph.groups) for leaf in group.leaves}
    reached = [reach(graph.step, edge[0].outputs, blocked) for edge, _, _ in edges]
    feeds = [
        frozenset(
            leaf_group[k] for k in graph.hidden if graph.new_carry[k] in r and k in leaf_group
        )
        for r in reached
    ]
    sources = {group for _, _, group in edges}
    found = []
    for (edge, v, group), fed, r in zip(edges, feeds, reached, strict=True):
        if group in fed:
            kind = ExitKind.RECURRENT
        elif r & outs and not fed & sources:
            kind = ExitKind.READOUT
        else:
            kind = ExitKind.FORWARD
        found.append(Exit(edge, v, group, kind, fed))
    return found


def _positional_sources(graph: CellGraph) -> dict[Var, int]:
    """Variables computed position by position from the state of one group, with that group."""
    leaf_group = {leaf: g for g, group in enumerate(graph.groups) for leaf in group.leaves}
    source = {graph.carry[k]: leaf_group[k] for k in graph.hidden if k in leaf_group}
    for e in graph.step:
        if not passes_derivative(e):
            continue
        found = {source[v] for k, v in enumerate(e.inputs) if v in source and _positional(e, k)}  # type: ignore[index]
        if len(found) == 1:
            source.update({v: next(iter(found)) for v in e.outputs if v.differentiable})
    return source


def _positional(equation: Equation, operand: int) -> bool:
    return influences(equation)[operand] is not None
