"""An analysed cell by the paths of its parameters and states: which states are coupled, and which
parameters act on them.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from jax.extend.core import Primitive

from ..cell import Cell
from ..core.analysis import ParameterRow, Site, reach
from ._diagnostics import CompilationRecord, Path, records


@dataclasses.dataclass(frozen=True, eq=False)
class NamedGroup:
    """States that are coupled neuron by neuron."""

    index: int
    hidden_paths: tuple[Path, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class NamedRelation:
    """A site: an operation in which parameters meet data on their way to a state."""

    primitive: Primitive
    operation: str
    source: str
    trainable_paths: dict[str, Path]
    trainable_param_states: dict[str, Any]  # of a framework that has them
    hidden_groups: tuple[Any, ...]
    parameters: tuple[str, ...]  # their names in the report
    site: Site

    @property
    def connected_hidden_paths(self) -> tuple[Path, ...]:
        """Paths of the states that it acts on."""
        return tuple(p for g in self.hidden_groups for p in g.hidden_paths)


Group = TypeVar("Group")
Relation = TypeVar("Relation", bound=NamedRelation)


def groups_of(cell: Cell, make: Callable[[int, list[int]], Group]) -> tuple[Group, ...]:
    """The state groups, made of their numbers and of those of their leaves of the user's carry;
    none that holds only an algorithm's own.
    """
    numbers, found = cell.leaf_numbers, []
    for n, group in enumerate(cell.graph.groups):
        if mine := dict.fromkeys(numbers[k] for k in group.leaves if k < len(numbers)):
            found.append(make(n, list(mine)))
    return tuple(found)


def relations_of(
    named: Any,
    make: type[Relation],
    owned: Callable[[list[int]], tuple[dict[str, Path], dict[str, Any]]],
) -> tuple[Relation, ...]:
    """The sites at which parameters of a named graph act on its groups without mixing, with or
    without a trace: a state without memory needs none. `owned` gives the paths and the owners of
    numbered parameters, by name.
    """
    graph, found = named.cell.graph, []
    for site in graph.sites:
        mine = sorted(k for k in site.params if k < len(named.weight_paths))
        reached = reach(graph.step, site.end.outputs, graph.mixing)
        leaves = {k for k in graph.hidden if graph.new_carry[k] in reached}
        fed = tuple(g for g in named.hidden_groups if leaves & {*graph.groups[g.index].leaves})
        if mine and fed:
            e, names = site.equation, tuple(graph.parameters[k].path for k in mine)
            found.append(make(e.primitive, e.name, e.source, *owned(mine), fed, names, site))
    return tuple(found)


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

    @functools.cached_property
    def hidden_groups(self) -> tuple[NamedGroup, ...]:
        """The state groups."""
        paths = self.state_paths
        make = lambda n, leaves: NamedGroup(n, tuple(paths[k] for k in leaves))
        return groups_of(self.cell, make)

    @functools.cached_property
    def hidden_param_op_relations(self) -> tuple[NamedRelation, ...]:
        """The sites: where parameters act on the groups."""
        rows, paths = self.parameters, self.weight_paths
        owned = lambda numbers: ({rows[k].path: paths[k] for k in numbers}, {})
        return relations_of(self, NamedRelation, owned)

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
