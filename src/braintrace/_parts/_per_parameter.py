"""The per-parameter carrier: one eligibility trace for each state slot and each element of y times contraction index.

    C[s] <- sum_q D[s, q] C[q] + f[s] * x                     (K steps at once: D and f of `Sensitivity`)
    gradient of W = sum over y's shared axes of  sum_s a[s] C[s]

Memory O(B I O S) for a dense weight; time O(B I O S^2) for a step, O(B I O S (S + K)) for K steps at once.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import CellGraph, Place, Site
from .._sites import widen
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

    def _advance(self, graph: CellGraph, n: int, site: Site, place: Place, old: list[Any], local: Sensitivity) -> list[Any]:
        group = graph.groups[place.group]
        new = []
        for s in place.slots:
            sensitivity = local.slots[place.group][s]
            assert sensitivity is not None
            total = None
            for q, trace in zip(place.slots, old, strict=True):
                if _couples(group.coupling, s, q, sensitivity.drive[n].shape[0]):
                    row = at_place(read_slot(graph, sensitivity.rows, group.slots[q]), place)
                    term = widen(row.astype(_real(trace.dtype)), trace) * trace
                    total = term if total is None else total + term
            drive = sensitivity.drive[n]
            if s in place.direct or drive.shape[0] > 1:
                drive = jnp.where(place.positions >= 0, drive, 0) if (place.positions < 0).any() else drive
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
        signals, kept = [], []
        for place, at in zip(site.places, traces, strict=True):
            group = graph.groups[place.group]
            for s, trace in zip(place.slots, at, strict=True):
                wide = np.result_type(trace.dtype, np.float32)
                signals.append(at_place(read_slot(graph, entry, group.slots[s]), place).astype(_real(wide)))
                kept.append(trace.astype(wide))
        if not kept:
            return jnp.zeros(site.weight.shape, site.weight.dtype)
        return site.rule.contract(signals, kept).astype(site.weight.dtype)


def _couples(coupling: np.ndarray, s: int, q: int, steps: int) -> bool:
    """Whether slot q reaches slot s within `steps` steps."""
    power = coupling.astype(int)
    for _ in range(min(steps, coupling.shape[0]) - 1):
        power = np.minimum(power + power @ coupling, 1)
    return bool(power[s, q])


def _real(dtype: Any) -> Any:
    return np.finfo(dtype).dtype if np.dtype(dtype).kind == "c" else dtype
