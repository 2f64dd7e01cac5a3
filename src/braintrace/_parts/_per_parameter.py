"""The per-parameter carrier: one eligibility trace for each state slot and each element of y times contraction index.

    C[s] <- sum_q D[s, q] C[q] + f[s] * x                     (K steps at once: D and f of `Sensitivity`)
    gradient of W = sum over y's shared axes of  sum_s a[s] C[s]

Memory O(B I O S) for a dense weight; time O(B I O S^2) for a step, O(B I O S (S + K)) for K steps at once.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import CellGraph, Place, Site
from .._kernels import MOST_SLOTS, advance_and_contract, contract, in_place
from ._carrier import Carrier, instantaneous, trace_dtype
from ._sensitivity import Sensitivity
from ._slots import at_place, read_slot

Traces = list[list[list[Any]]]  # by site, place and active slot


@dataclasses.dataclass(frozen=True)
class PerParameter(Carrier):
    """`dtype`: of the traces; by default that of y, at least float32. `clip`: the largest absolute value of a trace."""

    dtype: Any = None
    clip: float | None = None

    @property
    def longest_window(self) -> int | None:
        return None if self.clip is None else 1  # clipping after each step cannot be done for many at once

    def trace_dtype(self, site: Site) -> Any:
        """dtype of the traces of `site`."""
        return trace_dtype(site, self.dtype)

    def init(self, graph: CellGraph) -> Traces:
        """Zero traces."""

        def zero(site: Site) -> jax.Array:
            return jnp.zeros(site.trace_shape, self.trace_dtype(site))

        return [[[zero(site) for _ in place.slots] for place in site.places] for site in graph.sites]

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity, reset: Any) -> Traces:
        """The traces after the steps that `local` describes. A lane that starts afresh has D = 0: it is cleared already."""
        return [
            [self._advance(graph, n, site, place, old, local) for place, old in zip(site.places, before[n], strict=True)]
            for n, site in enumerate(graph.sites)
        ]

    def advance_and_contract(
        self, graph: CellGraph, before: Traces, local: Sensitivity, entry: Sequence[Any], reset: Any
    ) -> tuple[Traces, list[Any]]:
        """Dense weights, in float32 or float64, pass through the kernel; the others through `advance` and `contract`."""
        after, gradients = [], []
        for n, site in enumerate(graph.sites):
            if not self._has_kernel(site):
                gradients.append(self._contract(graph, site, before[n], entry))
                places = zip(site.places, before[n], strict=True)
                after.append([self._advance(graph, n, site, place, old, local) for place, old in places])
                continue
            x, places = site.rule.outer(local.data[n]), zip(site.places, before[n], strict=True)
            found = [self._in_kernel(graph, n, place, old, local, entry, x) for place, old in places]
            after.append([new for _, new in found])
            gradients.append(site.rule.from_outer(functools.reduce(jnp.add, [g for g, _ in found])).astype(site.weight.dtype))
        return after, gradients

    def moves_in_place(self, site: Site) -> bool:
        return self._has_kernel(site) and in_place()

    def _has_kernel(self, site: Site) -> bool:
        slots = [len(place.slots) for place in site.places]
        plain = self.clip is None and 0 not in site.trace_shape and self.trace_dtype(site) in (np.float32, np.float64)
        return plain and site.rule.has_outer and bool(slots) and min(slots) > 0 and max(slots) <= MOST_SLOTS

    def _in_kernel(
        self, graph: CellGraph, n: int, place: Place, old: list[Any], local: Sensitivity, entry: Sequence[Any], x: Any
    ) -> tuple[Any, list[Any]]:
        group, dtype = graph.groups[place.group], old[0].dtype
        lanes = old[0].shape[0]
        flat = lambda v: _by_lane(v, place, old[0])  # noqa: E731
        zero = jnp.zeros((lanes, old[0][0].size // x.shape[-1]), dtype)
        coupling = self._coupling(graph, n, place, local)
        rows, drives = [], []
        for s, reached in zip(place.slots, coupling, strict=True):
            for q, coupled in zip(place.slots, reached, strict=True):
                rows.append(flat(self._row(graph, place, local, s, q)) if coupled else zero)
            drive, shape = self._drive(n, place, local, s), (x.shape[0], *zero.shape)
            drives.append(jnp.zeros(shape, dtype) if drive is None else drive.astype(dtype).reshape(shape))
        signal = [flat(at_place(read_slot(graph, entry, group.slots[s]), place)) for s in place.slots]
        gradient, new = advance_and_contract(
            coupling, jnp.stack(rows).reshape(*coupling.shape, *zero.shape), jnp.swapaxes(jnp.stack(drives), 1, 2),
            jnp.swapaxes(x.astype(dtype), 0, 1), jnp.stack(signal), [e.reshape(*zero.shape, -1) for e in old],
        )  # fmt: skip
        return gradient, [e.reshape(o.shape) for e, o in zip(new, old, strict=True)]

    def _coupling(self, graph: CellGraph, n: int, place: Place, local: Sensitivity) -> np.ndarray:
        """Which of the place's slots reach which within the steps of `local`."""
        coupling = graph.groups[place.group].coupling
        steps = next(m.drive[n].shape[0] for m in local.slots[place.group] if m is not None)
        power = coupling.astype(int)
        for _ in range(min(steps, coupling.shape[0]) - 1):
            power = np.minimum(power + power @ coupling, 1)
        return power[np.ix_(place.slots, place.slots)].astype(bool)

    def _row(self, graph: CellGraph, place: Place, local: Sensitivity, s: int, q: int) -> Any:
        moved = local.slots[place.group][s]
        assert moved is not None
        return at_place(read_slot(graph, moved.rows, graph.groups[place.group].slots[q]), place)

    def _drive(self, n: int, place: Place, local: Sensitivity, s: int) -> Any:
        """The derivative of slot s with respect to y at each step; None where y cannot move it yet."""
        moved = local.slots[place.group][s]
        assert moved is not None
        drive = moved.drive[n]
        if s not in place.direct and drive.shape[0] == 1:
            return None
        return jnp.where(place.positions >= 0, drive, 0) if (place.positions < 0).any() else drive

    def _advance(self, graph: CellGraph, n: int, site: Site, place: Place, old: list[Any], local: Sensitivity) -> list[Any]:
        coupling, new = self._coupling(graph, n, place, local), []
        for s, reached in zip(place.slots, coupling, strict=True):
            total = None
            for q, coupled, trace in zip(place.slots, reached, old, strict=True):
                if coupled:
                    term = site.rule.at_entries(self._row(graph, place, local, s, q).astype(_real(trace.dtype))) * trace
                    total = term if total is None else total + term
            drive = self._drive(n, place, local, s)
            if drive is not None:
                drive = drive.astype(np.result_type(self.trace_dtype(site), np.float32))
                data = local.data[n]
                added = (
                    site.rule.spread(drive[0], [d[0] for d in data]) if drive.shape[0] == 1 else site.rule.spread_sum(drive, data)
                )
                total = added if total is None else total + added
            total = jnp.zeros_like(old[0]) if total is None else total.astype(self.trace_dtype(site))
            new.append(total if self.clip is None else jnp.clip(total, -self.clip, self.clip))
        return new

    def contract(self, graph: CellGraph, traces: Traces, entry: Sequence[Any]) -> list[Any]:
        """For each site, the gradient of its weight: `entry`, at the traces' time, contracted."""
        return [self._contract(graph, site, traces[n], entry) for n, site in enumerate(graph.sites)]

    def factors(
        self,
        graph: CellGraph,
        before: Any,
        after: Any,
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
    ) -> list[tuple[Any, Any]]:
        """The instantaneous part; that of `entry` is `contract`'s."""
        return instantaneous(graph, drives, data)

    def _contract(self, graph: CellGraph, site: Site, traces: list[list[Any]], entry: Sequence[Any]) -> jax.Array:
        total = None
        for place, at in zip(site.places, traces, strict=True):
            if not at:
                continue
            slots = [graph.groups[place.group].slots[s] for s in place.slots]
            signals = [at_place(read_slot(graph, entry, slot), place) for slot in slots]
            if self._has_kernel(site):
                flat = [_by_lane(v, place, e) for v, e in zip(signals, at, strict=True)]
                found = site.rule.from_outer(contract(jnp.stack(flat), tuple(e.reshape(*flat[0].shape, -1) for e in at)))
            else:
                wide = np.result_type(at[0].dtype, np.float32)
                found = site.rule.contract([v.astype(_real(wide)) for v in signals], [e.astype(wide) for e in at])
            total = found if total is None else total + found
        return jnp.zeros(site.weight.shape, site.weight.dtype) if total is None else total.astype(site.weight.dtype)


def _by_lane(values: jax.Array, place: Place, trace: jax.Array) -> jax.Array:
    """Values at a place as (lanes, outputs), in the dtype of the trace."""
    return jnp.broadcast_to(values, place.positions.shape).astype(trace.dtype).reshape(trace.shape[0], -1)


def _real(dtype: Any) -> Any:
    return np.finfo(dtype).dtype if np.dtype(dtype).kind == "c" else dtype
