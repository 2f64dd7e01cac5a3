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

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Inexact

from ..analysis import BatchAxis, CellGraph, ParameterRow, Place, Site
from ..step import Values
from ._carrier import (
    FactorCarrier,
    StepSignals,
    Traces,
    along,
    kept,
    represented,
    represented_shape,
    trace_dtype,
)
from ._filters import counting, kappa_step, leaky_step
from ._sensitivity import Sensitivity
from ._slots import at_place, signals_at, where_acting


@dataclasses.dataclass(frozen=True)
class Factored(FactorCarrier):
    """`input_decay` is ax, `state_decay` af, both in [0, 1)."""

    input_decay: float
    state_decay: float
    dtype: DTypeLike | None = None

    def approximation(self, graph: CellGraph, row: ParameterRow) -> str:
        traced = any(graph.sites[n].places for n in row.sites)
        return "its trace is smoothed and factored" if traced else ""

    def init(self, graph: CellGraph) -> Traces:
        zero = lambda site, shape: jnp.zeros(shape, trace_dtype(site, self.dtype))
        return {
            "input": [zero(s, represented_shape(s)) for s in graph.sites],
            "state": [
                [[zero(s, s.y.shape) for _ in p.slots] for p in s.places]
                if graph.first_of_sum[n] == n
                else []
                for n, s in enumerate(graph.sites)
            ],
            "weight": jnp.zeros(
                () if graph.batch is None else (graph.batch.size,),
                np.result_type(np.float32, *(counting(s.y.dtype) for s in graph.sites)),
            ),
        }

    def of_site(self, traces: Traces, site: int) -> Traces:
        return {"input": traces["input"][site], "state": traces["state"][site]}

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        def state(site: Site, of_site: Traces) -> Traces:
            return jax.tree.map(lambda v: kept(v, graph.y_axis(site), marks), of_site)

        return {
            "input": [
                kept(v, graph.data_axis(site), marks)
                for site, v in zip(graph.sites, traces["input"], strict=True)
            ],
            "state": list(map(state, graph.sites, traces["state"])),
            "weight": kept(traces["weight"], graph.batch and BatchAxis(0, graph.batch.size), marks),
        }

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        inputs = []
        for site, old, data in zip(graph.sites, before["input"], local.data, strict=True):
            x = represented(site, [d[0] for d in data], old.dtype)
            inputs.append(leaky_step(old, x, self.input_decay).astype(old.dtype))
        states = [
            [
                self._state(graph, n, place, old, local)
                for place, old in zip(site.places, before["state"][n], strict=False)
            ]
            for n, site in enumerate(graph.sites)
        ]
        return {
            "input": inputs,
            "state": states,
            "weight": kappa_step(before["weight"], 1, self.state_decay),
        }

    def _state(
        self, graph: CellGraph, n: int, place: Place, old: list[Array], local: Sensitivity
    ) -> list[Array]:
        """The state traces at one place: `old` moved by D, and what y adds."""
        group = graph.groups[place.group]
        new = []
        for s, own in zip(place.slots, old, strict=True):
            moved = local.slots[place.group][s]
            assert moved is not None
            total = (1 - self.state_decay) * where_acting(place, moved.drive[n][0])
            for q, trace in zip(place.slots, old, strict=True):
                if group.coupling[s, q]:
                    row = at_place(graph, moved.rows, place, q)
                    total = total + self.state_decay * row * trace
            new.append(total.astype(own.dtype))
        return new

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        gradients = []
        for n, site in enumerate(graph.sites):
            signal = self._signal(graph, site, traces["state"][graph.first_of_sum[n]], entry)
            gathered = along(traces["weight"], graph.y_axis(site), signal.ndim)
            gradients.append(
                site.rule.weight_gradient(
                    traces["input"][n], signal / jnp.where(gathered == 0, 1, gathered)
                )
            )
        return gradients

    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        cotangents = {}
        for n, (site, drive) in enumerate(zip(graph.sites, signals.drives, strict=True)):
            if site.places and graph.first_of_sum[n] == n:
                past = self._signal(graph, site, before["state"][n], signals.entry)
                gathered = along(after["weight"], graph.y_axis(site), drive.ndim)
                cotangents[n] = kappa_step(past, drive, self.state_decay) / gathered
        # without a trace, those of the instantaneous gradient
        return [
            (after["input"][n], cotangents[graph.first_of_sum[n]])
            if site.places
            else (represented(site, data, drive.dtype), drive)
            for n, (site, drive, data) in enumerate(
                zip(graph.sites, signals.drives, signals.data, strict=True)
            )
        ]

    def _signal(
        self, graph: CellGraph, site: Site, states: list[list[Array]], entry: Values
    ) -> Inexact[Array, "*y"]:
        """`sum_s a_s ef_s` at the site's y."""
        total = jnp.zeros(site.y.shape, trace_dtype(site, self.dtype))
        for signals, traces in zip(signals_at(graph, entry, site), states, strict=True):
            for signal, trace in zip(signals, traces, strict=True):
                total = total + signal * trace
        return total
