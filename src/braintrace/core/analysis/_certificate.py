"""The exactness certificate: which paths the online gradient of a parameter leaves out.

A parameter is exact when it acts on the hidden state through sites only, and when no leaf that can
hold its trace reaches a carried value through a cut edge. Otherwise each such edge is a dropped
path.
"""

import dataclasses
import functools
from collections.abc import Collection, Iterable, Sequence

from ..jaxpr import Atom, Equation, Var, is_bent
from ._dependence import Edge, passes_derivative, reach
from ._graph import DroppedPath, Exactness, ParameterRow, Site, StateGroup


@dataclasses.dataclass(frozen=True)
class Paths:
    """The step as the certificate sees it."""

    equations: list[Equation]
    mixing: set[Edge]  # edges into a region that are cut
    unsited: set[Edge]  # prelude operands of a region that have no site
    old: dict[int, Var]  # hidden leaves, old
    new: dict[int, Var]  # hidden leaves, new
    carried: dict[Var, str]  # other differentiable carried values, new, with their paths
    outputs: Sequence[Atom]  # the new carry and the outputs

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
        return {*self.outputs, *(v for e in self.equations for v in e.inputs)}

    def leaves(self, variables: Collection[Var]) -> set[int]:
        """The hidden leaves whose new values are among the variables."""
        return {leaf for leaf, v in self.new.items() if v in variables}

    def held(self, results: Sequence[Var]) -> set[int]:
        """The hidden leaves that a change of `results` reaches without a cut, now or later."""
        leaves: set[int] = set()
        reached = self.leaves(reach(self.equations, results, self.mixing))
        while reached - leaves:
            leaves |= reached
            start = [self.old[leaf] for leaf in leaves]
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


def certify(
    names: Sequence[str],
    params: Sequence[Var],
    sites: Sequence[Site],
    groups: Sequence[StateGroup],
    paths: Paths,
    frozen: Collection[int] = (),
) -> tuple[ParameterRow, ...]:
    """One row for each parameter."""
    site_edges = {s.edge for s in sites}
    rows = []
    for k, (name, param) in enumerate(zip(names, params, strict=True)):
        mine = tuple(n for n, s in enumerate(sites) if k in s.params)
        results = [v for n in mine for v in sites[n].end.outputs]
        held = paths.held(results)
        own = {leaf for g in groups if held & set(g.leaves) for leaf in g.leaves}
        start = [*results, *(paths.old[leaf] for leaf in sorted(held))]
        dropped = paths.dropped([param], own, site_edges) + paths.dropped(start, own)
        dropped = tuple(dict.fromkeys(dropped))
        exactness, reason = _verdict(paths, param, bool(mine), dropped)
        if k in frozen:
            exactness, reason = Exactness.FROZEN, "not trained"
        rows.append(ParameterRow(name, param.shape, exactness, mine, reason, dropped))
    return tuple(rows)


def _verdict(
    paths: Paths, param: Var, sited: bool, dropped: Sequence[DroppedPath]
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
    ends = {*paths.new.values(), *paths.carried}
    if ends & {param, *reach(paths.equations, [param])}:
        return Exactness.EXACT, "every path to the loss is kept"
    return Exactness.EXACT, "acts at its own step only"
