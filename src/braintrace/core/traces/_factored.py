"""The factored carrier: an input trace and a state trace in place of their product (ES-D-RTRL,
pp_prop).

    ex <- ax ex + x                                 for each site, shaped as its data
    ef <- af D ef + (1 - af) f                      for each site and slot, shaped as its y
    c  <- af c + (1 - af)                           (= 1 - af^(t+1): the weight that ef has gathered; by lane)
    gradient of W = weight gradient of the operation at ex and  sum_s (dL/dh_s) ef_s / c

Sites whose y meet in a sum have one ef.

Written one step back, with `entry` a and `drive` delta: (dL/dh).ef = af a.ef_old + (1 - af) delta.
Memory O(B (I + O S)).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis import BatchAxis, CellGraph, Place, Site
from ._carrier import along, keep_samples, represented, represented_shape, trace_dtype
from ._filters import LONGEST_PRODUCT, counting, kappa_step, leaky_step, linear_sums
from ._product_carrier import ProductCarrier, filtered, filtered_inputs, represented_over_time
from ._sensitivity import Sensitivity
from ._slots import at_place, read_slot, where_acting


@dataclasses.dataclass(frozen=True)
class Factored(ProductCarrier):
    """`input_decay` is ax, `state_decay` af, both in [0, 1)."""

    input_decay: float
    state_decay: float
    dtype: Any = None

    approximation: ClassVar[str] = "its trace is smoothed and factored"

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

    def advance(self, graph: CellGraph, before: Any, local: Sensitivity, reset: Any) -> Any:
        inputs = []
        for n, site in enumerate(graph.sites):
            old = keep_samples(before["input"][n], graph.data_axis(site), reset)
            x = represented(site, [d[0] for d in local.data[n]], old.dtype)
            inputs.append(leaky_step(old, x, self.input_decay).astype(old.dtype))
        weight = keep_samples(before["weight"], self._weight_axis(graph), reset)
        weight = kappa_step(weight, 1, self.state_decay)
        return {
            "input": inputs,
            "state": self._states(graph, before["state"], local.slots),
            "weight": weight,
        }

    def _states(self, graph: CellGraph, before: list[Any], slots: Any) -> list[Any]:
        return [
            [
                self._state(graph, n, place, old, slots)
                for place, old in zip(site.places, before[n], strict=False)
            ]
            for n, site in enumerate(graph.sites)
        ]

    def _state(
        self, graph: CellGraph, n: int, place: Place, old: list[Any], slots: Any
    ) -> list[Any]:
        group = graph.groups[place.group]
        new = []
        for s, own in zip(place.slots, old, strict=True):
            moved = slots[place.group][s]
            total = (1 - self.state_decay) * where_acting(place, moved.drive[n][0])
            for q, trace in zip(place.slots, old, strict=True):
                if group.coupling[s, q]:
                    total = (
                        total
                        + self.state_decay
                        * at_place(read_slot(graph, moved.rows, group.slots[q]), place)
                        * trace
                    )
            new.append(total.astype(own.dtype))
        return new

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
        inputs = [
            filtered_inputs(graph, site, d, [old], self.input_decay, steps, reset)[0]
            for site, d, old in zip(graph.sites, data, before["input"], strict=True)
        ]
        gained = jnp.full(
            (steps, *before["weight"].shape), 1 - self.state_decay, before["weight"].dtype
        )
        weight = filtered(
            gained, before["weight"], self.state_decay, self._weight_axis(graph), reset
        )

        traced = {n: drives[n] for n in self._traced(graph)}
        if (constant := self._constant(graph, slots)) is not None and steps <= LONGEST_PRODUCT:
            states = self._linear_states(graph, before["state"], slots, constant, steps)
            last, past = (
                jax.tree.map(lambda v: v[-1], states),
                jax.tree.map(lambda v: v[:-1], states),
            )
            cotangents = jax.vmap(lambda *at: self._cotangents(graph, *at))(
                past, weight, entry, traced
            )
        else:

            def one(old: list[Any], at: Any) -> tuple[list[Any], dict[int, Any]]:
                slots, weight, entry, drives = at
                return self._states(graph, old, slots), self._cotangents(
                    graph, old, weight, entry, drives
                )

            timed = jax.tree.map(
                lambda v: (
                    jnp.broadcast_to(v, (steps, *v.shape)) if isinstance(v, np.ndarray) else v
                ),
                slots,
            )
            last, cotangents = jax.lax.scan(one, before["state"], (timed, weight, entry, traced))
        shown = [
            represented_over_time(s, d, c.dtype, steps)
            for s, d, c in zip(graph.sites, data, drives, strict=True)
        ]
        factors = self._pairs(graph, inputs, cotangents, shown, drives)
        return factors, {"input": [x[-1] for x in inputs], "state": last, "weight": weight[-1]}

    def _constant(self, graph: CellGraph, slots: Any) -> list[list[np.ndarray]] | None:
        """For each site and place D as one matrix of numbers, where it is the same at all steps and
        positions; else None.
        """
        found: list[list[np.ndarray]] = []
        for n, site in enumerate(graph.sites):
            found.append([])
            for place in site.places if graph.first_of_sum[n] == n else ():
                group, matrix = graph.groups[place.group], np.zeros((len(place.slots),) * 2)
                for i, s in enumerate(place.slots):
                    for j, q in enumerate(place.slots):
                        leaf = slots[place.group][s].rows[graph.hidden.index(group.slots[q].leaf)]
                        if not group.coupling[s, q]:
                            continue
                        if not isinstance(leaf, np.ndarray):
                            return None
                        with jax.ensure_compile_time_eval():
                            rows = slots[place.group][s].rows
                            read = at_place(read_slot(graph, rows, group.slots[q]), place)
                        acts = np.ones((), bool) if place.acts is None else place.acts
                        entries = np.asarray(read)[np.broadcast_to(acts, read.shape)]
                        if (entries != entries[:1]).any():
                            return None
                        matrix[i, j] = entries[0]
                found[n].append(matrix)
        return found

    def _linear_states(
        self, graph: CellGraph, before: list[Any], slots: Any, matrices: Any, steps: int
    ) -> list[Any]:
        """The state traces before each step and after the last one, for a constant D."""
        new: list[Any] = []
        for n, site in enumerate(graph.sites):
            new.append([])
            for place, matrix, old in zip(site.places, matrices[n], before[n], strict=False):
                values = [
                    self._values(place, slots[place.group][s].drive[n], steps) for s in place.slots
                ]
                new[n].append(
                    linear_sums(values, old, self.state_decay * matrix, steps) if old else []
                )
        return new

    def _values(self, place: Place, drive: Any, steps: int) -> Any:
        """What a slot's trace gains at each step: a number, where that is the same at all steps and
        elements.
        """
        everywhere = isinstance(drive, np.ndarray) and place.acts is None
        if everywhere and (drive == drive.reshape(-1)[:1]).all():
            return (1 - self.state_decay) * float(drive.reshape(-1)[0])
        gained = (1 - self.state_decay) * where_acting(place, drive)
        shape = place.shape if place.axis is None else place.axis.full_shape(place.shape)
        return jnp.broadcast_to(gained.reshape(-1, *shape), (steps, *shape))

    def contract(self, graph: CellGraph, traces: Any, entry: Sequence[Any]) -> list[Any]:
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
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
    ) -> list[tuple[Any, Any]]:
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
    ) -> list[tuple[Any, Any]]:
        """Factors of each site; without a trace (`shown`: its data) those of the instantaneous
        gradient.
        """
        return [
            (inputs[n], cotangents[graph.first_of_sum[n]]) if site.places else (shown[n], drives[n])
            for n, site in enumerate(graph.sites)
        ]

    def _cotangents(
        self, graph: CellGraph, states: list[Any], weight: Any, entry: Sequence[Any], drives: Any
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
        self, graph: CellGraph, site: Site, states: list[Any], entry: Sequence[Any]
    ) -> jax.Array:
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
