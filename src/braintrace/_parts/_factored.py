"""The factored carrier: an input trace and a state trace in place of their product (ES-D-RTRL, pp_prop).

    ex <- ax ex + x                                 for each site, shaped as its data
    ef <- af D ef + (1 - af) f                      for each site and slot, shaped as its y
    c  <- af c + (1 - af)                           (= 1 - af^(t+1): the weight that ef has gathered; by lane)
    gradient of W = weight gradient of the operation at ex and  sum_s (dL/dh_s) ef_s / c

Sites whose y meet in a sum have one ef.

Written one step back, with `entry` a and `drive` delta: (dL/dh).ef = af a.ef_old + (1 - af) delta. Memory O(B (I + O S)).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import CellGraph, Place, Site
from ._carrier import Carrier, along, keep_lanes, represented, represented_shape, trace_dtype
from ._filters import counting
from ._sensitivity import Sensitivity
from ._slots import at_place, read_slot


@dataclasses.dataclass(frozen=True)
class Factored(Carrier):
    """`input_decay` is ax, `state_decay` af, both in [0, 1)."""

    input_decay: float
    state_decay: float
    dtype: Any = None

    factored: ClassVar[bool] = True
    approximation: ClassVar[str] = "its trace is smoothed and factored"

    def init(self, graph: CellGraph) -> Any:
        zero = lambda site, shape: jnp.zeros(shape, trace_dtype(site, self.dtype))  # noqa: E731
        return {
            "input": [zero(s, represented_shape(s)) for s in graph.sites],
            "state": [
                [[zero(s, s.y.shape) for _ in p.slots] for p in s.places] if graph.first_of_sum[n] == n else []
                for n, s in enumerate(graph.sites)
            ],
            "weight": jnp.zeros(() if graph.lanes is None else (graph.lanes,), self._weight_dtype(graph)),
        }

    def of_site(self, traces: Any, site: int) -> Any:
        return {"input": traces["input"][site], "state": traces["state"][site]}

    def _weight_dtype(self, graph: CellGraph) -> Any:
        return np.result_type(np.float32, *(counting(s.y.dtype) for s in graph.sites))

    def advance(self, graph: CellGraph, before: Any, local: Sensitivity, reset: Any) -> Any:
        inputs, states = [], []
        for n, site in enumerate(graph.sites):
            dtype = trace_dtype(site, self.dtype)
            axis = graph.lane_axis(site)
            data_axis = None if axis is None else site.rule.lane_axis(axis)
            x = represented(site, [d[0] for d in local.data[n]], dtype)
            inputs.append((self.input_decay * keep_lanes(before["input"][n], data_axis, reset) + x).astype(dtype))
            own = before["state"][n] if graph.first_of_sum[n] == n else []
            states.append([
                self._state(graph, n, place, old, local, dtype) for place, old in zip(site.places, own, strict=False)
            ])  # fmt: skip
        weight = keep_lanes(before["weight"], 0 if before["weight"].ndim else None, reset)
        weight = self.state_decay * weight + (1 - self.state_decay)
        return {"input": inputs, "state": states, "weight": weight}

    def _state(self, graph: CellGraph, n: int, place: Place, old: list[Any], local: Sensitivity, dtype: Any) -> list[Any]:
        group = graph.groups[place.group]
        new = []
        for s in place.slots:
            moved = local.slots[place.group][s]
            assert moved is not None
            total = (1 - self.state_decay) * jnp.where(place.positions >= 0, moved.drive[n][0], 0)
            for q, trace in zip(place.slots, old, strict=True):
                if group.coupling[s, q]:
                    total = total + self.state_decay * at_place(read_slot(graph, moved.rows, group.slots[q]), place) * trace
            new.append(total.astype(dtype))
        return new

    def contract(self, graph: CellGraph, traces: Any, entry: Sequence[Any]) -> list[Any]:
        return [
            site.rule.weight_gradient(traces["input"][n], self._signal(graph, n, site, traces, entry, traces["weight"]))
            for n, site in enumerate(graph.sites)
        ]

    def factors(
        self,
        graph: CellGraph,
        before: Any,
        after: Any,
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
    ) -> list[tuple[Any, Any]]:
        found: list[tuple[Any, Any]] = []
        for n, site in enumerate(graph.sites):
            if (first := graph.first_of_sum[n]) != n and site.places:  # one state trace, so one cotangent
                found.append((after["input"][n], found[first][1]))
                continue
            if not site.places:  # no trace: the instantaneous gradient
                found.append((represented(site, data[n], drives[n].dtype), drives[n]))
                continue
            weight = along(after["weight"], graph.lane_axis(site), drives[n].ndim)
            past = self.state_decay * self._signal(graph, n, site, before, entry, None)
            found.append((after["input"][n], (past + (1 - self.state_decay) * drives[n]) / weight))
        return found

    def _signal(self, graph: CellGraph, n: int, site: Site, traces: Any, entry: Sequence[Any], weight: Any) -> jax.Array:
        """`sum_s a_s ef_s` at the site's y, divided by the gathered weight when that is given."""
        total = jnp.zeros(site.y.shape, trace_dtype(site, self.dtype))
        for place, states in zip(site.places, traces["state"][graph.first_of_sum[n]], strict=True):
            for s, trace in zip(place.slots, states, strict=True):
                total = total + at_place(read_slot(graph, entry, graph.groups[place.group].slots[s]), place) * trace
        if weight is None:
            return total
        gathered = along(weight, graph.lane_axis(site), total.ndim)
        return total / jnp.where(gathered == 0, 1, gathered)
