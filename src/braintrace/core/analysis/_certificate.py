"""The exactness certificate: which paths the online gradient of a parameter leaves out.

A parameter is exact when it acts on the hidden state through sites only, and when no state of the
groups that its sites feed reaches a carried value through a mixing edge. Otherwise each such edge
is a dropped path.
"""

import dataclasses
from collections.abc import Collection, Sequence

from ..jaxpr import Equation, Var
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

    def dropped(
        self, start: Sequence[Var], groups: set[int], leaf_group: dict[int, int], beyond: set[Edge]
    ) -> list[DroppedPath]:
        """The cut edges, and carried values, that a derivative from `start` meets; `beyond` edges
        are not passed.
        """
        found = reach(self.equations, start, beyond)
        paths = []
        for e in self.equations:
            for k, v in enumerate(e.inputs):
                if (
                    (e, k) not in self.mixing | self.unsited
                    or v not in found
                    or (e, k) in beyond
                    or not passes_derivative(e)
                ):
                    continue
                reached = reach(self.equations, e.outputs)
                ends = {leaf_group[leaf] for leaf, v in self.new.items() if v in reached}
                if ends:
                    kind = "recurrent" if ends & groups else "cross-layer"
                    paths.append(DroppedPath(kind, e.name, e.source))
        paths += [
            DroppedPath("carried", name, "") for v, name in self.carried.items() if v in found
        ]
        return paths


def certify(
    names: Sequence[str],
    params: Sequence[Var],
    sites: Sequence[Site],
    groups: Sequence[StateGroup],
    paths: Paths,
    frozen: Collection[int] = (),
) -> tuple[ParameterRow, ...]:
    """One row for each parameter."""
    leaf_group = {leaf: g for g, group in enumerate(groups) for leaf in group.leaves}
    site_edges = {s.edge for s in sites}
    of_group: dict[int, list[DroppedPath]] = {}
    rows = []
    ends = set(paths.new.values()) | set(paths.carried)
    for k, (name, param) in enumerate(zip(names, params, strict=True)):
        mine = [n for n, s in enumerate(sites) if k in s.params]
        my_groups = {leaf_group[leaf] for leaf in _fed(sites, mine, paths)} if mine else set()
        dropped = paths.dropped([param], my_groups, leaf_group, site_edges)
        dropped += paths.dropped(_results(sites, mine), my_groups, leaf_group, set())
        for g in my_groups:
            if g not in of_group:
                start = [paths.old[leaf] for leaf in groups[g].leaves]
                of_group[g] = paths.dropped(start, {g}, leaf_group, set())
            dropped += of_group[g]
        touches = bool(reach(paths.equations, [param]) & ends) or param in ends
        exact = not dropped
        if k in frozen:
            exactness, reason = Exactness.FROZEN, "not trained"
        elif exact:
            exactness, reason = (
                Exactness.EXACT,
                "every path to the loss is kept" if touches else "acts at its own step only",
            )
        elif mine:
            exactness, reason = Exactness.APPROXIMATE, f"{len(set(dropped))} dropped path(s)"
        else:
            exactness, reason = (
                Exactness.INSTANTANEOUS,
                "has no site: only its effect at the same step is seen",
            )
        rows.append(
            ParameterRow(
                name, param.shape, exactness, tuple(mine), reason, tuple(dict.fromkeys(dropped))
            )
        )
    return tuple(rows)


def _fed(sites: Sequence[Site], numbers: list[int], paths: Paths) -> set[int]:
    """The hidden leaves that sites reach without mixing."""
    reached = reach(paths.equations, _results(sites, numbers), paths.mixing)
    return {leaf for leaf, v in paths.new.items() if v in reached}


def _results(sites: Sequence[Site], numbers: list[int]) -> list[Var]:
    return [v for n in numbers for v in sites[n].end.outputs]
