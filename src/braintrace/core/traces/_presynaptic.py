"""The presynaptic carrier: an input trace alone (OTTT).

    ex <- leak ex + x                               for each site, shaped as its data
    gradient of W = weight gradient of the operation at ex and delta = dL_t/dy_t

The derivative of the state with respect to y is inside delta, so any gain is right. Memory O(B I).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from .._errors import CompilationError, problem
from ..analysis import CellGraph, Site
from ._carrier import keep_samples, represented, represented_shape, trace_dtype
from ._filters import leaky_step
from ._product_carrier import ProductCarrier, filtered_inputs
from ._sensitivity import Sensitivity


@dataclasses.dataclass(frozen=True)
class Presynaptic(ProductCarrier):
    """`leaks` holds the leak of each state group, by number, or one for all; None reads them from
    the model. `bias_trace`: whether operands get a trace too.

    With `twice` the sites of hidden layers use the filter of the filter, `ez <- leak ez + ex`
    (F-OTPE).
    """

    leaks: tuple[float, ...] | None
    bias_trace: bool = False
    twice: bool = False
    dtype: Any = None

    approximation: ClassVar[str] = "a constant leak stands for the neuron's dynamics"
    needs_dynamics: ClassVar[bool] = False

    def leak(self, site: Site) -> float:
        """The leak of the group that the site feeds; 0 where there is no trace."""
        if not site.places or not (site.is_operation or self.bias_trace):
            return 0.0
        assert self.leaks is not None
        return self.leaks[site.places[0].group if len(self.leaks) > 1 else 0]

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> "Presynaptic":
        if self.leaks is not None:
            if len(self.leaks) not in (1, len(graph.groups)):
                raise CompilationError(
                    problem(
                        "Wrong number of leaks.",
                        got=f"{len(self.leaks)} leaks",
                        expected=f"one, or one for each of the {len(graph.groups)} state groups",
                        do="look at the report",
                    )
                )
            return self
        fed = {p.group for s in graph.sites for p in s.places}
        return dataclasses.replace(
            self, leaks=tuple(leak_of(g) if g in fed else 0.0 for g in range(len(graph.groups)))
        )

    def init(self, graph: CellGraph) -> Any:
        zero = lambda s: jnp.zeros(represented_shape(s), trace_dtype(s, self.dtype))
        return [[zero(s)] * (2 if self._double(graph, s) else 1) for s in graph.sites]

    def _double(self, graph: CellGraph, site: Site) -> bool:
        hidden = graph.marks.get("hidden", frozenset())
        leaves = {leaf for p in site.places for leaf in graph.groups[p.group].leaves}
        return self.twice and self.leak(site) > 0 and bool(hidden & leaves)

    def advance(self, graph: CellGraph, before: Any, local: Sensitivity, reset: Any) -> Any:
        new = []
        for n, site in enumerate(graph.sites):
            axis = graph.data_axis(site)
            x = represented(site, [d[0] for d in local.data[n]], before[n][0].dtype)
            filtered = []
            for old in before[n]:
                old = keep_samples(old, axis, reset)
                x = leaky_step(old, x, self.leak(site)).astype(old.dtype)
                filtered.append(x)
            new.append(filtered)
        return new

    def contract(self, graph: CellGraph, traces: Any, entry: Sequence[Any]) -> list[Any]:
        return [jnp.zeros(s.weight.shape, s.weight.dtype) for s in graph.sites]

    def factors(
        self,
        graph: CellGraph,
        before: Any,
        after: Any,
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
    ) -> list[tuple[Any, Any]]:
        return [(filters[-1], drive) for filters, drive in zip(after, drives, strict=True)]

    def window_factors(
        self,
        graph: CellGraph,
        before: Any,
        slots: Any,
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
        reset: Any,
    ) -> tuple[list[tuple[Any, Any]], Any]:
        steps = drives[0].shape[0] if drives else 1
        after = [
            filtered_inputs(graph, site, d, old, self.leak(site), steps, reset)
            for site, d, old in zip(graph.sites, data, before, strict=True)
        ]
        return self.factors(graph, before, after, entry, drives, data), jax.tree.map(
            lambda v: v[-1], after
        )
