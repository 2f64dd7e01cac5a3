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
from itertools import chain
from typing import TypedDict

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from ..analysis import CellGraph, Place, Site
from ..kernels import in_place
from ..step import Values
from ._carrier import StepSignals, Sums, TraceCarrier, represented, trace_dtype
from ._one_pass import Moves, has_kernel, pass_over
from ._sensitivity import Sensitivity
from ._slots import at_place, signals_at, where_acting

OfSlots = list[list[Array]]  # of each place and active slot


class Passing(TypedDict):
    """What is kept of a trace that the next step overwrites: the last step's operands, and the
    derivative of each slot with respect to y.
    """

    data: list[Array]
    drive: OfSlots


Traces = list[OfSlots | Passing]  # of each site


@dataclasses.dataclass(frozen=True)
class PerParameter(TraceCarrier):
    """`dtype`: of the traces; by default that of y, at least float32. `clip`: the largest absolute
    value of a trace.
    """

    dtype: DTypeLike | None = None
    clip: float | None = None

    @property
    def longest_window(self) -> int | None:
        # clipping after each step cannot be done for many at once
        return None if self.clip is None else 1

    def trace_dtype(self, site: Site) -> np.dtype:
        """dtype of the traces of `site`."""
        return trace_dtype(site, self.dtype)

    def init(self, graph: CellGraph) -> Traces:
        """Zero traces."""
        return [self._zero(graph, site) for site in graph.sites]

    def _zero(self, graph: CellGraph, site: Site) -> OfSlots | Passing:
        passes, dtype = self._passes(graph, site), self.trace_dtype(site)
        shape = site.y.shape if passes else site.trace_shape
        slots = [[jnp.zeros(shape, dtype) for _ in place.slots] for place in site.places]
        if not passes:
            return slots
        return {"data": [jnp.zeros(v.shape, v.dtype) for v in site.data], "drive": slots}

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        """The traces after the steps that `local` describes."""
        return [self._advance(graph, n, old, local) for n, old in enumerate(before)]

    def advance_and_contract(
        self,
        graph: CellGraph,
        before: Traces,
        local: Sensitivity,
        entry: Values,
        sums: Sums,
        now: Values | None,
    ) -> tuple[Traces, Sums]:
        """Dense weights, in float32 or float64, in one pass of the kernel; the others by `advance`
        and `contract`.
        """
        after, sums = list(before), dict(sums)
        for n, (site, old) in enumerate(zip(graph.sites, before, strict=True)):
            total, data, drive = sums[site.weight], local.data[n], None if now is None else now[n]
            if not isinstance(old, dict) and self._has_kernel(graph, site):
                moves = [self._moves(graph, n, place, local) for place in site.places]
                signals = signals_at(graph, entry, site)
                after[n], total = pass_over(site, old, signals, total, data, drive, moves)
            else:
                own = None
                if drive is not None and isinstance(old, dict):
                    own = [d[0] for d in data], drive
                after[n] = self._advance(graph, n, old, local)
                total = total + self._contract(graph, site, old, entry, own)
            sums[site.weight] = total
        return after, sums

    def gradients(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[Array]:
        steps = zip(signals.data, signals.drives, strict=True)
        every = zip(graph.sites, before, steps, strict=True)
        return [self._contract(graph, site, old, signals.entry, own) for site, old, own in every]

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

    def _moves(self, graph: CellGraph, n: int, place: Place, local: Sensitivity) -> Moves:
        """What the steps of `local` do to the traces at a place."""
        coupled = self._coupling(graph, n, place, local)
        rows: list[list[Array | None]] = []
        drives: list[Array | None] = []
        for s, reached in zip(place.slots, coupled, strict=True):
            moved = local.slots[place.group][s]
            assert moved is not None
            rows.append(
                [
                    at_place(graph, moved.rows, place, q) if reaches else None
                    for q, reaches in zip(place.slots, reached, strict=True)
                ]
            )
            drive = moved.drive[n]
            moves = s in place.direct or drive.shape[0] > 1  # else y cannot move the slot yet
            drives.append(where_acting(place, drive) if moves else None)
        return rows, drives

    def _advance(
        self, graph: CellGraph, n: int, old: OfSlots | Passing, local: Sensitivity
    ) -> OfSlots | Passing:
        site, data = graph.sites[n], local.data[n]
        moves = [self._moves(graph, n, place, local) for place in site.places]
        if not isinstance(old, dict):
            return [self._moved(site, at, *move, data) for at, move in zip(old, moves, strict=True)]
        zero = jnp.zeros(site.y.shape, self.trace_dtype(site))
        drives = [
            [zero if d is None else d[-1].astype(zero.dtype) for d in drives] for _, drives in moves
        ]
        return {"data": [d[-1] for d in data], "drive": drives}

    def _moved(
        self,
        site: Site,
        old: list[Array],
        rows: Sequence[Sequence[Array | None]],
        drives: Sequence[Array | None],
        data: list[Array],
    ) -> list[Array]:
        """The traces at one place after some steps."""
        dtype, new = self.trace_dtype(site), []
        for reached, drive in zip(rows, drives, strict=True):
            terms = [
                site.rule.at_entries(row.astype(_real(e.dtype))) * e
                for row, e in zip(reached, old, strict=True)
                if row is not None
            ]
            if drive is not None:
                wide = drive.astype(np.result_type(dtype, np.float32))
                single = wide.shape[0] == 1
                terms.append(
                    site.rule.spread(wide[0], [d[0] for d in data])
                    if single
                    else site.rule.spread_sum(wide, data)
                )
            total = (
                functools.reduce(jnp.add, terms).astype(dtype) if terms else jnp.zeros_like(old[0])
            )
            new.append(total if self.clip is None else jnp.clip(total, -self.clip, self.clip))
        return new

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        """For each site, the gradient of its weight: `entry`, at the traces' time, contracted."""
        return [self._contract(graph, site, traces[n], entry) for n, site in enumerate(graph.sites)]

    def _contract(
        self,
        graph: CellGraph,
        site: Site,
        traces: OfSlots | Passing,
        entry: Values,
        now: tuple[Values, Array] | None = None,
    ) -> Array:
        """`now`: the data of a step and the derivative with respect to its y, whose own gradient is
        added.
        """
        total = jnp.zeros(site.weight.shape, site.weight.dtype)
        signals = signals_at(graph, entry, site)
        if not isinstance(traces, dict) and self._has_kernel(graph, site):
            data, drive = (None, None) if now is None else ([d[None] for d in now[0]], now[1])
            return pass_over(site, traces, signals, total, data, drive, None)[1]
        wide = np.result_type(self.trace_dtype(site), np.float32)
        steps = [] if now is None else [now]
        if isinstance(traces, dict):
            pairs = zip(chain(*signals), chain(*traces["drive"]), strict=True)
            steps.append((traces["data"], functools.reduce(jnp.add, [a * f for a, f in pairs])))
        else:
            for of_place, at in zip(signals, traces, strict=True):
                if at:
                    a, e = [a.astype(_real(wide)) for a in of_place], [e.astype(wide) for e in at]
                    total = total + site.rule.contract(a, e).astype(total.dtype)
        if steps:
            c = jnp.stack([c.astype(wide) for _, c in steps])
            x = jnp.stack([represented(site, data, wide) for data, _ in steps])
            total = total + site.rule.weight_gradient_sum(x, c).astype(total.dtype)
        return total


def _real(dtype: np.dtype) -> np.dtype:
    return np.finfo(dtype).dtype if dtype.kind == "c" else dtype
