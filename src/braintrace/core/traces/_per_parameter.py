"""The per-parameter carrier: one eligibility trace for each state slot and each element of y times
contraction index.

    C[s] <- sum_q D[s, q] C[q] + f[s] * x         (K steps at once: D and f of `Sensitivity`)
    gradient of W = sum over y's shared axes of  sum_s a[s] C[s]

Memory O(B I O S) for a dense weight; time O(B I O S^2) for a step, O(B I O S (S + K)) for K steps
at once. Where no state slot reaches another (D = 0, a plain RNN) C is the product f * x of the last
step, and kept as its factors: O(B (I + O S)).
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from ..analysis import CellGraph, Place, Site
from ..kernels import in_place
from ._carrier import Sums, TraceCarrier, represented, trace_dtype
from ._one_pass import Moves, has_kernel, pass_over
from ._sensitivity import Sensitivity
from ._slots import at_place, read_slot, where_acting

Traces = list[Array]  # by site: of each place and active slot, or `Passing`
Passing = dict[str, Any]  # the last step's 'data' and, of each place and active slot, 'drive'


@dataclasses.dataclass(frozen=True)
class PerParameter(TraceCarrier):
    """`dtype`: of the traces; by default that of y, at least float32. `clip`: the largest absolute
    value of a trace.
    """

    dtype: DTypeLike | None = None
    clip: float | None = None

    @property
    def longest_window(self) -> int | None:
        return (
            None if self.clip is None else 1
        )  # clipping after each step cannot be done for many at once

    def trace_dtype(self, site: Site) -> Any:
        """dtype of the traces of `site`."""
        return trace_dtype(site, self.dtype)

    def init(self, graph: CellGraph) -> Traces:
        """Zero traces."""
        return [self._zero(graph, site) for site in graph.sites]

    def _zero(self, graph: CellGraph, site: Site) -> Any:
        shape = site.y.shape if self._passes(graph, site) else site.trace_shape
        slots = [
            [jnp.zeros(shape, self.trace_dtype(site)) for _ in place.slots] for place in site.places
        ]
        if not self._passes(graph, site):
            return slots
        return {"data": [jnp.zeros(v.shape, v.dtype) for v in site.data], "drive": slots}

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        """The traces after the steps that `local` describes."""
        return [
            self._advance(graph, n, site, before[n], local) for n, site in enumerate(graph.sites)
        ]

    def advance_and_contract(
        self,
        graph: CellGraph,
        before: Traces,
        local: Sensitivity,
        entry: Sequence[Array],
        sums: Sums,
        now: Sequence[Array] | None,
    ) -> tuple[Traces, Sums]:
        """Dense weights, in float32 or float64, in one pass of the kernel; the others by `advance`
        and `contract`.
        """
        after, sums = list(before), dict(sums)
        for n, site in enumerate(graph.sites):
            total, drive = sums[site.weight], None if now is None else now[n]
            if self._has_kernel(graph, site):
                moves = [self._moves(graph, n, place, local) for place in site.places]
                after[n], total = pass_over(
                    graph, site, before[n], entry, total, local.data[n], drive, moves
                )
            else:
                own = (
                    None
                    if drive is None or not self._passes(graph, site)
                    else ([d[0] for d in local.data[n]], drive)
                )
                after[n] = self._advance(graph, n, site, before[n], local)
                total = total + self._contract(graph, site, before[n], entry, own)
            sums[site.weight] = total
        return after, sums

    def gradients(
        self,
        graph: CellGraph,
        before: Traces,
        after: Any,
        entry: Sequence[Array],
        drives: Sequence[Array],
        data: list[list[Array]],
    ) -> list[Array]:
        every = zip(graph.sites, before, zip(data, drives, strict=True), strict=True)
        return [self._contract(graph, site, traces, entry, now) for site, traces, now in every]

    def adds_now(self, graph: CellGraph, site: Site) -> bool:
        return self._has_kernel(graph, site) or self._passes(graph, site)

    def moves_in_place(self, graph: CellGraph, site: Site) -> bool:
        return self._has_kernel(graph, site) and in_place()

    def _has_kernel(self, graph: CellGraph, site: Site) -> bool:
        return (
            self.clip is None
            and not self._passes(graph, site)
            and has_kernel(site, self.trace_dtype(site))
        )

    def _passes(self, graph: CellGraph, site: Site) -> bool:
        """Whether nothing is carried over from step to step, so that the trace is a product, and
        its factors are smaller.
        """
        if self.clip is not None or not site.is_operation or not site.places:
            return False
        within = [graph.groups[p.group].coupling[np.ix_(p.slots, p.slots)] for p in site.places]
        factors = site.y.size + sum(getattr(v, "size", 0) for v in site.data)
        return not any(coupling.any() for coupling in within) and factors < int(
            np.prod(site.trace_shape)
        )

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

    def _moves(self, graph: CellGraph, n: int, place: Place, local: Sensitivity) -> Moves:
        """What the steps of `local` do to the traces at a place."""
        coupled, rows = self._coupling(graph, n, place, local), []
        for s, reached in zip(place.slots, coupled, strict=True):
            pairs = zip(place.slots, reached, strict=True)
            rows.append(
                [self._row(graph, place, local, s, q) if reaches else None for q, reaches in pairs]
            )
        return rows, [self._drive(n, place, local, s) for s in place.slots]

    def _drive(self, n: int, place: Place, local: Sensitivity, s: int) -> Any:
        """The derivative of slot s with respect to y at each step; None where y cannot move it
        yet.
        """
        moved = local.slots[place.group][s]
        assert moved is not None
        drive = moved.drive[n]
        if s not in place.direct and drive.shape[0] == 1:
            return None
        return where_acting(place, drive)

    def _advance(self, graph: CellGraph, n: int, site: Site, old: Any, local: Sensitivity) -> Any:
        moves = [self._moves(graph, n, place, local) for place in site.places]
        if self._passes(graph, site):
            zero = jnp.zeros(site.y.shape, self.trace_dtype(site))
            drives = [
                [zero if d is None else d[-1].astype(zero.dtype) for d in drives]
                for _, drives in moves
            ]
            return {"data": [d[-1] for d in local.data[n]], "drive": drives}
        return [
            self._moved(site, at, *move, local.data[n]) for at, move in zip(old, moves, strict=True)
        ]

    def _moved(
        self, site: Site, old: list[Array], rows: Any, drives: Any, data: list[Array]
    ) -> list[Array]:
        """The traces at one place after some steps."""
        dtype, new = self.trace_dtype(site), []
        for reached, drive in zip(rows, drives, strict=True):
            pairs = zip(reached, old, strict=True)
            terms = [
                site.rule.at_entries(row.astype(_real(e.dtype))) * e
                for row, e in pairs
                if row is not None
            ]
            if drive is not None:
                wide = drive.astype(np.result_type(dtype, np.float32))
                one = wide.shape[0] == 1
                terms.append(
                    site.rule.spread(wide[0], [d[0] for d in data])
                    if one
                    else site.rule.spread_sum(wide, data)
                )
            total = (
                functools.reduce(jnp.add, terms).astype(dtype) if terms else jnp.zeros_like(old[0])
            )
            new.append(total if self.clip is None else jnp.clip(total, -self.clip, self.clip))
        return new

    def contract(self, graph: CellGraph, traces: Traces, entry: Sequence[Array]) -> list[Array]:
        """For each site, the gradient of its weight: `entry`, at the traces' time, contracted."""
        return [self._contract(graph, site, traces[n], entry) for n, site in enumerate(graph.sites)]

    def _contract(
        self, graph: CellGraph, site: Site, traces: Any, entry: Sequence[Array], now: Any = None
    ) -> Array:
        """`now`: the data of a step and the derivative with respect to its y, whose own gradient is
        added.
        """
        total = jnp.zeros(site.weight.shape, site.weight.dtype)
        if self._has_kernel(graph, site):
            data, drive = (None, None) if now is None else ([d[None] for d in now[0]], now[1])
            return pass_over(graph, site, traces, entry, total, data, drive, None)[1]
        wide = np.result_type(self.trace_dtype(site), np.float32)
        steps = [] if now is None else [now]
        if self._passes(graph, site):
            signals = [_signals(graph, place, entry) for place in site.places]
            terms = [
                a * f
                for at in zip(signals, traces["drive"], strict=True)
                for a, f in zip(*at, strict=True)
            ]
            steps.append((traces["data"], functools.reduce(jnp.add, terms)))
        else:
            for place, at in zip(site.places, traces, strict=True):
                if at:
                    signals = [a.astype(_real(wide)) for a in _signals(graph, place, entry)]
                    total = total + site.rule.contract(
                        signals, [e.astype(wide) for e in at]
                    ).astype(total.dtype)
        if steps:
            c = jnp.stack([c.astype(wide) for _, c in steps])
            x = jnp.stack([represented(site, data, wide) for data, _ in steps])
            total = total + site.rule.weight_gradient_sum(x, c).astype(total.dtype)
        return total


def _signals(graph: CellGraph, place: Place, entry: Sequence[Array]) -> list[Array]:
    """Of each slot at a place, shaped as y."""
    return [
        at_place(read_slot(graph, entry, graph.groups[place.group].slots[s]), place)
        for s in place.slots
    ]


def _real(dtype: DTypeLike) -> Any:
    return np.finfo(dtype).dtype if np.dtype(dtype).kind == "c" else dtype
