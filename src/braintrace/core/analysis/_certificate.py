"""The exactness certificate: which paths the online gradient of a parameter leaves out.

A parameter is exact when it acts on the hidden state through sites only, and when no leaf that can
hold its trace reaches a carried value through a cut edge. Otherwise each such edge is a dropped
path.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Sequence, Set

from ..jaxpr import Atom, Equation, Var, is_bent
from ._dependence import Edge, passes_derivative, reach
from ._graph import CellGraph, DroppedPath, Exactness, ParameterRow, new_leaves


@dataclasses.dataclass(frozen=True)
class _Paths:
    """The step as the certificate sees it."""

    graph: CellGraph
    mixing: Set[Edge]  # edges into a region that are cut
    unsited: Set[Edge]  # prelude operands of a region that have no site

    @property
    def equations(self) -> Sequence[Equation]:
        return self.graph.program.equations

    @functools.cached_property
    def carried(self) -> dict[Var, str]:
        """Differentiable carried values that are read and not hidden, new, with their paths."""
        graph, first = self.graph, len(self.graph.carry) - len(self.graph.extra)
        inert = [first + k for k, leaf in enumerate(graph.extra) if leaf.inert]
        return {
            v: path
            for k, (v, path) in enumerate(zip(graph.new_carry, graph.leaf_paths, strict=True))
            if isinstance(v, Var)
            and v.differentiable
            and k not in (*graph.hidden, *inert)
            and graph.carry[k] in self.read
        }

    @functools.cached_property
    def cuts(self) -> list[tuple[Edge, set[int]]]:
        """The cut edges in order, each with the hidden leaves that it leads to."""
        edges_and_ends = []
        for e in self.equations:
            edges = [(e, k) for k in range(len(e.inputs))]
            mine = [x for x in edges if x in self.mixing or x in self.unsited or is_bent(e)]
            ends = self.leaves(reach(self.equations, e.outputs)) if mine else set()
            if passes_derivative(e) and (ends or is_bent(e)):
                edges_and_ends += [(edge, ends) for edge in mine]
        return edges_and_ends

    @functools.cached_property
    def read(self) -> set[Atom]:
        """Whatever an equation reads or the step returns."""
        return {*self.graph.program.outputs, *(v for e in self.equations for v in e.inputs)}

    def leaves(self, variables: Collection[Var]) -> set[int]:
        """The hidden leaves whose new values are among the variables."""
        return {leaf for leaf, v in new_leaves(self.graph).items() if v in variables}

    def held(self, results: Sequence[Var]) -> set[int]:
        """The hidden leaves that a change of `results` reaches without a cut, now or later."""
        leaves: set[int] = set()
        reached = self.leaves(reach(self.equations, results, self.mixing))
        while reached - leaves:
            leaves |= reached
            start = [self.graph.carry[leaf] for leaf in leaves]
            reached = self.leaves(reach(self.equations, start, self.mixing))
        return leaves

    def dropped(
        self, start: Iterable[Var], own: set[int], beyond: Collection[Edge] = ()
    ) -> list[DroppedPath]:
        """The cut edges, and carried values, that a derivative from `start` meets; it does not pass
        `beyond`. Paths to the leaves `own` are recurrent.
        """
        reached = reach(self.equations, start, beyond)
        kind = lambda ends: "recurrent" if ends & own else "cross-layer" if ends else "readout"
        paths = [
            DroppedPath(kind(ends), e.name, e.source)
            for (e, k), ends in self.cuts
            if e.inputs[k] in reached and (e, k) not in beyond
        ]
        return paths + [
            DroppedPath("carried", n, "") for v, n in self.carried.items() if v in reached
        ]


def certified(graph: CellGraph, mixing: Set[Edge], unsited: Set[Edge]) -> CellGraph:
    """The graph with the certificate of each of its parameters, of which frozen ones say so."""
    paths, site_edges = _Paths(graph, mixing, unsited), {s.edge for s in graph.sites}
    rows = []
    for k, (row, param) in enumerate(zip(graph.parameters, graph.params, strict=True)):
        mine = tuple(n for n, s in enumerate(graph.sites) if k in s.params)
        results = [v for n in mine for v in graph.sites[n].end.outputs]
        held = paths.held(results)
        own = {leaf for g in graph.groups if held & set(g.leaves) for leaf in g.leaves}
        start = [*results, *(graph.carry[leaf] for leaf in sorted(held))]
        dropped = paths.dropped([param], own, site_edges) + paths.dropped(start, own)
        dropped = tuple(dict.fromkeys(dropped))
        exactness, reason = row.exactness, row.reason
        if exactness is not Exactness.FROZEN:
            exactness, reason = _verdict(paths, param, bool(mine), dropped)
        rows.append(ParameterRow(row.path, row.shape, exactness, mine, reason, dropped))
    return dataclasses.replace(graph, parameters=tuple(rows))


def _verdict(
    paths: _Paths, param: Var, sited: bool, dropped: Sequence[DroppedPath]
) -> tuple[Exactness, str]:
    if param not in paths.read:
        return Exactness.UNUSED, (
            "the step does not read it; if it makes the initial state, "
            "read it in the step: h = where(first, h0, h)"
        )
    if dropped and sited:
        return Exactness.APPROXIMATE, f"{len(dropped)} dropped path(s)"
    if dropped:
        return Exactness.INSTANTANEOUS, "has no site: only its effect at the same step is seen"
    ends = {*new_leaves(paths.graph).values(), *paths.carried}
    if ends & {param, *reach(paths.equations, [param])}:
        return Exactness.EXACT, "every path to the loss is kept"
    return Exactness.EXACT, "acts at its own step only"
