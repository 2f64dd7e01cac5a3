"""The factored carrier: an input trace and a state trace in place of their product (ES-D-RTRL,
pp_prop).

    ex <- ax ex + x                                 for each site, shaped as its data
    ef <- af D ef + (1 - af) f                      for each site and slot, shaped as its y
    c  <- af c + (1 - af)                           (= 1 - af^(t+1): the weight that ef has
                                                    gathered, for each sample)
    gradient of W = weight gradient of the operation at ex and  sum_s (dL/dh_s) ef_s / c

Sites whose y meet in a sum have one ef.

Written one step back, with `entry` a and `drive` delta: (dL/dh).ef = af a.ef_old + (1 - af) delta.
Memory O(B (I + O S)).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Inexact, PyTree

from ..analysis import Axes, BatchAxis, CellGraph, Site
from ..kernels import met
from ..step import Values
from ._carrier import FactorCarrier, StepSignals, Traces, along, represented, trace_dtype
from ._filters import counting, kappa_step
from ._sensitivity import Moves, Sensitivity
from ._slots import signals_at
from ._zeros import Zeros, of_y


@dataclasses.dataclass(frozen=True)
class Factored(FactorCarrier):
    """`input_decay` is ax, `state_decay` af, both in [0, 1).

    >>> from braintrace import rules
    >>> rules.Factored(0.9, 0.8).state_decay
    0.8
    """

    approximation: ClassVar[str] = "its trace is smoothed and factored"

    input_decay: float
    state_decay: float
    dtype: DTypeLike | None = None

    def decays(self, graph: CellGraph, site: Site) -> tuple[float, ...]:
        return (self.input_decay,)

    def zeros(self, graph: CellGraph) -> PyTree:
        zero = lambda s: of_y(graph, s, trace_dtype(s, self.dtype))
        return {
            "input": super().zeros(graph),
            "state": [
                [[zero(s) for _ in p.slots] for p in s.places] if graph.first_of_sum[n] == n else []
                for n, s in enumerate(graph.sites)
            ],
            "weight": Zeros(
                () if graph.batch is None else (graph.batch.size,),
                np.result_type(np.float32, *(counting(s.y.dtype) for s in graph.sites)),
                Axes(None if graph.batch is None else 0),
            ),
        }

    def sum_gain(self, graph: CellGraph, site: Site) -> float | None:
        return 1.0 if site.places else None

    def sums(self, traces: Traces, site: int) -> list[Array]:
        return traces["input"][site]

    def of_site(self, traces: Traces, site: int) -> Traces:
        return {"input": traces["input"][site], "state": traces["state"][site]}

    def axes(self, graph: CellGraph) -> Traces:
        return {
            "input": super().axes(graph),
            "state": [graph.y_axis(site) for site in graph.sites],
            "weight": graph.batch and BatchAxis(0, graph.batch.size),
        }

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        states = [
            [
                self._state(old, local.at(graph, n, place))
                for place, old in zip(site.places, before["state"][n], strict=False)
            ]
            for n, site in enumerate(graph.sites)
        ]
        weight = kappa_step(before["weight"], 1, self.state_decay)
        inputs = super().advance(graph, before["input"], local)
        return {"input": inputs, "state": states, "weight": weight}

    def _state(self, old: list[Array], moves: Moves) -> list[Array]:
        """The state traces at one place: `old` moved by D, and what y adds."""
        new = []
        for own, rows, drive in zip(old, *moves, strict=True):
            terms = [met(row, e) for row, e in zip(rows, old, strict=True) if row is not None]
            moved, added = sum(terms, jnp.zeros_like(own)), 0 if drive is None else drive[0]
            new.append(kappa_step(moved, added, self.state_decay).astype(own.dtype))
        return new

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        def cotangents(traces: Traces, entry: Values) -> list[Array]:
            found, weight = [], jnp.where(traces["weight"] == 0, 1, traces["weight"])
            for n, site in enumerate(graph.sites):
                signal = self._signal(graph, site, traces["state"][graph.first_of_sum[n]], entry)
                found.append(signal / along(weight, graph.y_axis(site), signal.ndim))
            return found

        every = zip(graph.sites, traces["input"], jax.vmap(cotangents)(traces, entry), strict=True)
        return [site.rule.weight_gradient_sum(sums[-1], c) for site, sums, c in every]

    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        found, cotangents = [], {}
        for n, (site, drive) in enumerate(zip(graph.sites, signals.drives, strict=True)):
            first = graph.first_of_sum[n]
            if not site.places:  # without a trace, those of the instantaneous gradient
                found.append((represented(site, signals.data[n], drive.dtype), drive))
                continue
            if first == n:
                past = self._signal(graph, site, before["state"][n], signals.entry)
                gathered = along(after["weight"], graph.y_axis(site), drive.ndim)
                cotangents[n] = kappa_step(past, drive, self.state_decay) / gathered
            found.append((after["input"][n][-1], cotangents[first]))
        return found

    def _signal(
        self, graph: CellGraph, site: Site, states: list[list[Array]], entry: Values
    ) -> Inexact[Array, "*y"]:
        """`sum_s a_s ef_s` at the site's y."""
        total = jnp.zeros(site.y.shape, trace_dtype(site, self.dtype))
        for signals, traces in zip(signals_at(graph, entry, site), states, strict=True):
            for signal, trace in zip(signals, traces, strict=True):
                total = total + met(signal, trace)
        return total
