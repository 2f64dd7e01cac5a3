"""What is known of a learner before it runs: its report, what is trained and what is reset."""

import functools

import jax
from jaxtyping import PyTree

from ..reports import CompilationReport, NamedGraph, Path
from ._compiled import Compiled


class Known(Compiled):
    """A compiled cell and what it says of itself."""

    @functools.cached_property
    def report(self) -> CompilationReport:
        """What the compiler states: for each parameter its sites, traces and certificate, and every
        dropped path.
        """
        graph = NamedGraph(self.cell, *self._named())
        return CompilationReport(graph, self.rule.carrier, self.rule.name)

    def _named(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """The paths of the parameters, and of the leaves of the carry."""
        rows, names = self.graph.parameters, self.cell.carry.names
        return tuple((row.path,) for row in rows), tuple((name,) for name in names)

    @property
    def reset_axes(self) -> PyTree:
        """Where each leaf of the carry has the samples that a reset starts again; None where it
        leaves the leaf as it is.
        """
        axes = {self.cell.leaf_numbers[k]: self.graph.leaf_axis(k) for k in self._resettable}
        return self.cell.carry.unflatten([axes.get(n) for n in range(len(self.cell.carry.leaves))])

    def trained(self, params: PyTree) -> PyTree:
        """`params` with None in place of whatever has no gradient: what an optimiser is initialised
        with.
        """
        live = jax.tree.structure(params).unflatten(self._live)
        return jax.tree.map(lambda v, live: v if live else None, params, live)
