"""An analysed cell by the paths of its parameters and states: which states are coupled, and which
parameters act on them.
"""

import dataclasses
import functools
from collections.abc import Sequence

from ..cell import Cell
from ..core.analysis import CellGraph, ParameterRow, Site, reach
from ..core.jaxpr import Unfolding
from ..core.traces import Carrier
from ._diagnostics import CompilationRecord, Path, records


def groups_of(cell: Cell) -> list[tuple[int, list[int]]]:
    """For each state group, its number and those of its leaves of the user's carry; none that holds
    only an algorithm's own.
    """
    numbers, found = cell.leaf_numbers, []
    for n, group in enumerate(cell.graph.groups):
        if mine := dict.fromkeys(numbers[k] for k in group.leaves if k < len(numbers)):
            found.append((n, list(mine)))
    return found


def relations_of(
    graph: CellGraph, count: int, groups: Sequence[int]
) -> list[tuple[Site, list[int], list[int]]]:
    """The sites with the numbers of the parameters (of `count`) that act there, and of the `groups`
    that it feeds.
    """
    found = []
    for site in graph.sites:
        mine = sorted(k for k in site.params if k < count)
        fed = [n for n in _fed(graph, site) if n in groups]
        if mine and fed:
            found.append((site, mine, fed))
    return found


def _fed(graph: CellGraph, site: Site) -> list[int]:
    """The groups that a site acts on without mixing, with or without a trace: a state without
    memory needs none.
    """
    reached = reach(graph.step, site.end.outputs, graph.mixing)
    leaves = {k for k in graph.hidden if graph.new_carry[k] in reached}
    return [n for n, group in enumerate(graph.groups) if leaves & set(group.leaves)]


@dataclasses.dataclass(frozen=True)
class NamedGroup:
    """States that are coupled neuron by neuron."""

    index: int
    hidden_paths: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class NamedRelation:
    """A site: an operation in which parameters meet data on their way to a state."""

    operation: str
    source: str
    trainable_paths: dict[str, Path]  # by the parameter's name in the report
    hidden_groups: tuple[NamedGroup, ...]

    @property
    def parameters(self) -> tuple[str, ...]:
        return tuple(self.trainable_paths)

    @property
    def connected_hidden_paths(self) -> tuple[Path, ...]:
        return tuple(p for g in self.hidden_groups for p in g.hidden_paths)


@dataclasses.dataclass(frozen=True, eq=False)
class NamedGraph:
    """The analysis of a cell in terms of paths.

    Attributes:
        cell: the analysed cell.
        weight_paths: for each parameter of the report, its path.
        state_paths: for each leaf of the carry, its path.
    """

    cell: Cell
    weight_paths: tuple[Path, ...]
    state_paths: tuple[Path, ...]

    @property
    def parameters(self) -> tuple[ParameterRow, ...]:
        return self.cell.graph.parameters

    @property
    def unfoldings(self) -> tuple[Unfolding, ...]:
        return self.cell.unfoldings

    @functools.cached_property
    def hidden_groups(self) -> tuple[NamedGroup, ...]:
        """The state groups."""
        return tuple(
            NamedGroup(n, tuple(self.state_paths[k] for k in leaves))
            for n, leaves in groups_of(self.cell)
        )

    @functools.cached_property
    def hidden_param_op_relations(self) -> tuple[NamedRelation, ...]:
        """The sites: where parameters act on the groups."""
        groups, found = {g.index: g for g in self.hidden_groups}, []
        for site, mine, fed in relations_of(self.cell.graph, len(self.weight_paths), list(groups)):
            paths = {self.parameters[k].path: self.weight_paths[k] for k in mine}
            equation = site.equation
            found.append(
                NamedRelation(equation.name, equation.source, paths, tuple(groups[n] for n in fed))
            )
        return tuple(found)

    @property
    def dynamic_states(self) -> list[Path]:
        """Paths of what is carried and is in no group: counters, delays, statistics, random
        keys.
        """
        grouped = {path for g in self.hidden_groups for path in g.hidden_paths}
        return list(dict.fromkeys(p for p in self.state_paths if p not in grouped))

    @functools.cached_property
    def diagnostics(self) -> tuple[CompilationRecord, ...]:
        """The compiler's decisions."""
        return records(self)

    def table(self, carrier: Carrier | None = None, title: str = "Cell") -> str:
        """The report as text."""
        return self.cell.graph.table(carrier, title)
