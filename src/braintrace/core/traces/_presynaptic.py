"""The presynaptic carrier: an input trace alone (OTTT).

    ex <- leak ex + x                               for each site, shaped as its data
    gradient of W = gain * weight gradient of the operation at ex and delta = dL_t/dy_t

The derivative of the state with respect to y is inside delta, so any gain is right. Memory O(B I).
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, DTypeLike

from .._errors import CompilationError
from ..analysis import CellGraph, Site
from ..step import Values
from ._carrier import FactorCarrier, StepSignals, Traces


@dataclasses.dataclass(frozen=True)
class Presynaptic(FactorCarrier):
    """`leaks` holds the leak of each state group, by number, or one for all; None reads them from
    the model. `bias_trace`: whether the biases of drives get a trace too.

    With `twice` the sites of hidden layers use the filter of the filter, `ez <- leak ez + ex`
    (F-OTPE). `gain` is of the weights that have a trace (S-TLLR).

    >>> from braintrace import rules
    >>> rules.Presynaptic((0.9,)).leaks
    (0.9,)
    """

    approximation: ClassVar[str] = "a constant leak stands for the neuron's dynamics"

    leaks: tuple[float, ...] | None
    bias_trace: bool = False
    twice: bool = False
    gain: float = 1.0
    dtype: DTypeLike | None = None

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> "Presynaptic":
        return dataclasses.replace(self, leaks=leaks_of(graph, self.leaks, leak_of))

    def decays(self, graph: CellGraph, site: Site) -> tuple[float, ...]:
        if not self._is_traced(graph, site):
            return (0.0,)
        assert self.leaks is not None
        leak = self.leaks[site.places[0].group if len(self.leaks) > 1 else 0]
        leaves = {leaf for p in site.places for leaf in graph.groups[p.group].leaves}
        hidden = graph.marks.get("hidden", frozenset()) & leaves
        return (leak, leak) if self.twice and leak > 0 and hidden else (leak,)

    def _is_traced(self, graph: CellGraph, site: Site) -> bool:
        is_bias = self.bias_trace and graph.sites.index(site) in graph.drive_biases
        return bool(site.places) and (site.is_operation or is_bias)

    def sum_gain(self, graph: CellGraph, site: Site) -> float | None:
        if len(self.decays(graph, site)) > 1:
            return None
        return self.gain if self._is_traced(graph, site) else 1.0

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        return [jnp.zeros(s.weight.shape, s.weight.dtype) for s in graph.sites]

    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        gains = [self.gain if self._is_traced(graph, site) else 1.0 for site in graph.sites]
        every = zip(gains, after, signals.drives, strict=True)
        return [(x if gain == 1 else gain * x, drive) for gain, (*_, x), drive in every]


def leaks_of(
    graph: CellGraph, given: tuple[float, ...] | None, leak_of: Callable[[int], float]
) -> tuple[float, ...]:
    """The leak of each state group, or one for all: as given, or the model's own (`leak_of`)."""
    if given is None:
        fed = {p.group for s in graph.sites for p in s.places}
        return tuple(leak_of(g) if g in fed else 0.0 for g in range(len(graph.groups)))
    if len(given) not in (1, len(graph.groups)):
        raise CompilationError(
            "Wrong number of leaks.",
            got=f"{len(given)} leaks",
            expected=f"one, or one for each of the {len(graph.groups)} state groups",
            do="look at the report",
        )
    return given
