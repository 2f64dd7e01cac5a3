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
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from ..analysis import BatchAxis, CellGraph, ParameterRow, Place, Site
from ._carrier import FactorCarrier, along, kept, represented, represented_shape, trace_dtype
from ._filters import counting, kappa_step, leaky_step
from ._sensitivity import Sensitivity
from ._slots import at_place, read_slot, where_acting


@dataclasses.dataclass(frozen=True)
class Factored(FactorCarrier):
    """`input_decay` is ax, `state_decay` af, both in [0, 1)."""

    input_decay: float
    state_decay: float
    dtype: DTypeLike | None = None

    def approximation(self, graph: CellGraph, row: ParameterRow) -> str:
        traced = any(graph.sites[n].places for n in row.sites)
        return "its trace is smoothed and factored" if traced else ""

    def init(self, graph: CellGraph) -> Any:
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
                () if graph.batch is None else (graph.batch.size,), self._weight_dtype(graph)
            ),
        }

    def of_site(self, traces: Any, site: int) -> Any:
        return {"input": traces["input"][site], "state": traces["state"][site]}

    def _weight_axis(self, graph: CellGraph) -> BatchAxis | None:
        return None if graph.batch is None else BatchAxis(0, graph.batch.size)

    def _weight_dtype(self, graph: CellGraph) -> Any:
        return np.result_type(np.float32, *(counting(s.y.dtype) for s in graph.sites))

    def reset(self, graph: CellGraph, traces: Any, marks: Array) -> Any:
        def state(site: Site, of_site: Any) -> Any:
            return jax.tree.map(lambda v: kept(v, graph.y_axis(site), marks), of_site)

        return {
            "input": [
                kept(v, graph.data_axis(site), marks)
                for site, v in zip(graph.sites, traces["input"], strict=True)
            ],
            "state": list(map(state, graph.sites, traces["state"])),
            "weight": kept(traces["weight"], self._weight_axis(graph), marks),
        }

    def advance(self, graph: CellGraph, before: Any, local: Sensitivity) -> Any:
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
                    row = at_place(read_slot(graph, moved.rows, group.slots[q]), place)
                    total = total + self.state_decay * row * trace
            new.append(total.astype(own.dtype))
        return new

    def contract(self, graph: CellGraph, traces: Any, entry: Sequence[Array]) -> list[Array]:
        found = []
        for n, site in enumerate(graph.sites):
            signal = self._signal(graph, site, traces["state"][graph.first_of_sum[n]], entry)
            gathered = along(traces["weight"], graph.y_axis(site), signal.ndim)
            found.append(
                site.rule.weight_gradient(
                    traces["input"][n], signal / jnp.where(gathered == 0, 1, gathered)
                )
            )
        return found

    def factors(
        self,
        graph: CellGraph,
        before: Any,
        after: Any,
        entry: Sequence[Array],
        drives: Sequence[Array],
        data: list[list[Array]],
    ) -> list[tuple[Array, Array]]:
        cotangents = self._cotangents(graph, before["state"], after["weight"], entry, drives)
        shown = [
            represented(s, d, c.dtype) for s, d, c in zip(graph.sites, data, drives, strict=True)
        ]
        return self._pairs(graph, after["input"], cotangents, shown, drives)

    @staticmethod
    def _traced(graph: CellGraph) -> list[int]:
        """The sites with a state trace of their own."""
        return [
            n for n, site in enumerate(graph.sites) if site.places and graph.first_of_sum[n] == n
        ]

    @staticmethod
    def _pairs(
        graph: CellGraph, inputs: Any, cotangents: Any, shown: Any, drives: Any
    ) -> list[tuple[Array, Array]]:
        """Factors of each site; without a trace (`shown`: its data) those of the instantaneous
        gradient.
        """
        return [
            (inputs[n], cotangents[graph.first_of_sum[n]]) if site.places else (shown[n], drives[n])
            for n, site in enumerate(graph.sites)
        ]

    def _cotangents(
        self,
        graph: CellGraph,
        states: list[Array],
        weight: Any,
        entry: Sequence[Array],
        drives: Any,
    ) -> dict[int, Any]:
        found = {}
        for n in self._traced(graph):
            site, drive = graph.sites[n], drives[n]
            past = self.state_decay * self._signal(graph, site, states[n], entry)
            found[n] = (past + (1 - self.state_decay) * drive) / along(
                weight, graph.y_axis(site), drive.ndim
            )
        return found

    def _signal(
        self, graph: CellGraph, site: Site, states: list[Array], entry: Sequence[Array]
    ) -> Array:
        """`sum_s a_s ef_s` at the site's y."""
        total = jnp.zeros(site.y.shape, trace_dtype(site, self.dtype))
        for place, traces in zip(site.places, states, strict=True):
            for s, trace in zip(place.slots, traces, strict=True):
                total = (
                    total
                    + at_place(read_slot(graph, entry, graph.groups[place.group].slots[s]), place)
                    * trace
                )
        return total
