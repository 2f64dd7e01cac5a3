"""No trace: the gradient of each step's own loss by its own inputs.

    gradient of W = weight gradient of the operation at x and delta = dL_t/dy_t

The whole of a window is one product. Memory: none; time O(B I O).
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike

from ..analysis import CellGraph, Exactness, Site
from ..step import Values
from ._carrier import FactorCarrier, StepSignals, Traces, represented
from ._sensitivity import Sensitivity


@dataclasses.dataclass(frozen=True)
class NoTrace(FactorCarrier):
    """What a weight does to a later step has no gradient; what it does to its own step has.

    With `estimated` an edit of the rule gives an estimate of it.
    """

    dtype: DTypeLike | None = None
    estimated: bool = False

    def arrange(self, graph: CellGraph) -> CellGraph:
        """The same graph, whose parameters that act on a later step say so."""
        kind, why = Exactness.INSTANTANEOUS, "no trace: only its effect at the same step is seen"
        if self.estimated:
            kind = Exactness.APPROXIMATE
            why = "its effect on later steps is what a learned estimate says"
        of_later = (Exactness.EXACT, Exactness.APPROXIMATE)
        rows = [
            dataclasses.replace(row, exactness=kind, reason=why)
            if row.exactness in of_later and (row.dropped or self._traced(graph, row.sites))
            else row
            for row in graph.parameters
        ]
        return dataclasses.replace(graph, parameters=tuple(rows))

    def _traced(self, graph: CellGraph, sites: tuple[int, ...]) -> bool:
        return any(graph.sites[n].places for n in sites)

    def warnings(self, graph: CellGraph, site: Site) -> list[str]:
        return []  # each slope meets the data of its own step

    def decays(self, graph: CellGraph, site: Site) -> tuple[float, ...]:
        return ()

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        return before

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        return [jnp.zeros(s.weight.shape, s.weight.dtype) for s in graph.sites]

    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        every = zip(graph.sites, signals.data, signals.drives, strict=True)
        return [(represented(site, data, drive.dtype), drive) for site, data, drive in every]
