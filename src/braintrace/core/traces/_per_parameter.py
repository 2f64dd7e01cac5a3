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
import math
from collections.abc import Sequence
from itertools import chain
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, PyTree

from .._precision import wide, widened
from ..analysis import Axes, CellGraph, Site, whole_samples
from ..kernels import MOST_SLOTS, Operands, advance_and_contract, in_place, met
from ..step import Values
from ._carrier import Cotangents, StepSignals, Sums, TraceCarrier, Traces, represented, trace_dtype
from ._sensitivity import Moves, Sensitivity
from ._slots import cleared, operand_axes, signals_at, timed, untimed
from ._zeros import of_entries, of_y, zeros

OfSlots = list[list[Array]]  # of each place and active slot


class Passing(NamedTuple):
    """What is kept of a trace that the next step overwrites: the last step's operands, and the
    derivative of each slot with respect to y.
    """

    data: list[Array]
    drive: OfSlots


OfSite = OfSlots | Passing
Now = tuple[Values, Array]  # the data of a step and the derivative with respect to its y


@dataclasses.dataclass(frozen=True)
class PerParameter(TraceCarrier):
    """`dtype`: of the traces; by default that of y, at least float32. `clip`: the largest absolute
    value of a trace.

    >>> from braintrace import rules
    >>> rules.Rule("D-RTRL", rules.PerParameter()).carrier.longest_window is None
    True
    """

    #: Whether dense weights take the trace kernel.
    kernel: ClassVar[bool] = True

    dtype: DTypeLike | None = None
    clip: float | None = None

    @property
    def longest_window(self) -> int | None:
        # clipping after each step cannot be done for many at once
        return None if self.clip is None else 1

    def zeros(self, graph: CellGraph) -> PyTree:
        """For each site, `OfSlots` or `Passing`."""
        return [self._zero(graph, site) for site in graph.sites]

    def _zero(self, graph: CellGraph, site: Site) -> PyTree:
        passes, dtype = self._passes(graph, site), trace_dtype(site, self.dtype)
        kind = of_y if passes else of_entries
        slots = [[kind(graph, site, dtype) for _ in place.slots] for place in site.places]
        if not passes:
            return slots
        pairs = zip(site.data, operand_axes(graph, site), strict=True)
        data = [zeros(v.shape, v.dtype, Axes(whole_samples(axis))) for v, axis in pairs]
        return Passing(data, slots)

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        """The traces after the steps that `local` describes."""
        return [self._advance(graph, n, old, local) for n, old in enumerate(before)]

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        return [self._reset(graph, *of, marks) for of in zip(graph.sites, traces, strict=True)]

    def _reset(self, graph: CellGraph, site: Site, of: OfSite, marks: Bool[Array, " B"]) -> OfSite:
        if not isinstance(of, Passing):
            return of
        pairs = zip(operand_axes(graph, site), of.data, strict=True)
        return of._replace(data=[cleared(axis, v, marks) for axis, v in pairs])

    def advance_and_contract(
        self, graph: CellGraph, before: Traces, local: Sensitivity, signals: Cotangents, sums: Sums
    ) -> tuple[Traces, Sums]:
        """Dense weights, in float32 or float64, in one pass of the kernel; the others by `advance`
        and `contract`.
        """
        after, sums, (entry, now) = list(before), dict(sums), signals
        for n, (site, old) in enumerate(zip(graph.sites, before, strict=True)):
            total, data, drive = sums[site.weight], local.data[n], None if now is None else now[n]
            if self._has_kernel(graph, site):
                moves = [local.at(graph, n, place) for place in site.places]
                met = signals_at(graph, entry, site)
                after[n], total = _pass_over(site, old, met, total, data, drive, moves)
            else:
                own = None
                if drive is not None and self.adds_now(graph, site):
                    own = untimed(data), drive
                after[n] = self._advance(graph, n, old, local)
                total = total + self._contract(graph, site, *timed((old, entry, own)))
            sums[site.weight] = total
        return after, sums

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        steps = [None] * len(traces) if now is None else zip(now.data, now.drives, strict=True)
        every = zip(graph.sites, traces, steps, strict=True)
        return [self._contract(graph, site, of, entry, own) for site, of, own in every]

    def adds_now(self, graph: CellGraph, site: Site) -> bool:
        return self._has_kernel(graph, site) or self._passes(graph, site)

    def moves_in_place(self, graph: CellGraph, site: Site) -> bool:
        return self._has_kernel(graph, site) and in_place()

    def _has_kernel(self, graph: CellGraph, site: Site) -> bool:
        """Whether the traces of a dense weight take the trace kernel."""
        slots = [len(place.slots) for place in site.places]
        return (
            self.kernel
            and self.clip is None
            and not self._passes(graph, site)
            and site.rule.outer_layout is not None
            and 0 not in (*site.trace_shape, *slots)
            and trace_dtype(site, self.dtype) in (np.float32, np.float64)
            and 0 < max(slots, default=0) <= MOST_SLOTS
        )

    def _passes(self, graph: CellGraph, site: Site) -> bool:
        """Whether nothing is carried over from step to step, so that the trace is a product, and
        its factors are smaller.
        """
        within = [graph.groups[p.group].coupling[np.ix_(p.slots, p.slots)] for p in site.places]
        if self.clip is not None or not site.is_operation or not within:
            return False
        factors = site.y.size + sum(getattr(v, "size", 0) for v in site.data)
        return not any(map(np.any, within)) and factors < math.prod(site.trace_shape)

    def _advance(self, graph: CellGraph, n: int, old: OfSite, local: Sensitivity) -> OfSite:
        site, data, dtype = graph.sites[n], local.data[n], trace_dtype(graph.sites[n], self.dtype)
        moves = [local.at(graph, n, place) for place in site.places]
        if isinstance(old, Passing):
            zero = jnp.zeros(site.y.shape, dtype)
            last = lambda drive: zero if drive is None else drive[-1].astype(dtype)
            return Passing([d[-1] for d in data], [list(map(last, drives)) for _, drives in moves])

        def moved(old: list[Array], rows: Sequence[Array | None], drive: Array | None) -> Array:
            terms = [
                met(site.rule.at_entries(row.astype(jnp.finfo(e.dtype).dtype)), e)
                for row, e in zip(rows, widened(old), strict=True)
                if row is not None
            ]
            if drive is not None:
                drive = drive.astype(np.result_type(dtype, np.float32))
                terms.append(
                    site.rule.spread(*untimed((drive, data)))
                    if drive.shape[0] == 1
                    else site.rule.spread_sum(drive, data)
                )
            total = sum(terms[1:], terms[0]).astype(dtype) if terms else jnp.zeros_like(old[0])
            return total if self.clip is None else jnp.clip(total, -self.clip, self.clip)

        return [
            [moved(at, *of_slot) for of_slot in zip(*move, strict=True)]
            for at, move in zip(old, moves, strict=True)
        ]

    def _contract(
        self, graph: CellGraph, site: Site, traces: OfSite, entry: Values, now: Now | None = None
    ) -> Array:
        """The sum over an axis of samples in front; with `now`, the gradient of that step is
        added.
        """
        total = jnp.zeros(site.weight.shape, wide(site.weight.dtype))
        if jax.tree.leaves(entry)[0].shape[0] == 1:
            signals = timed(signals_at(graph, untimed(entry), site))
        else:
            signals = jax.vmap(lambda entry: signals_at(graph, entry, site))(entry)
        if not isinstance(traces, Passing) and self._has_kernel(graph, site):
            data, drive = (None, None) if now is None else ([d[None] for d in now[0]], now[1])
            return _pass_over(site, traces, signals, total, data, drive, None)[1]
        dtype = np.result_type(trace_dtype(site, self.dtype), np.float32)
        steps = [] if now is None else [now]
        if isinstance(traces, Passing):
            pairs = zip(chain(*signals), chain(*traces.drive), strict=True)
            steps.append((traces.data, functools.reduce(jnp.add, [met(a, f) for a, f in pairs])))
        else:
            for of_place, at in zip(signals, traces, strict=True):
                if at:
                    a = [a.astype(jnp.finfo(dtype).dtype) for a in of_place]
                    found = site.rule.contract(a, [e.astype(dtype) for e in at])
                    total = total + found.astype(total.dtype)
        if steps:
            each = jax.vmap(
                lambda data: represented(site, data, dtype), axis_size=steps[0][1].shape[0]
            )
            c = jnp.concatenate([c.astype(dtype) for _, c in steps])
            x = jnp.concatenate([each(data) for data, _ in steps])
            total = total + site.rule.weight_gradient_sum(x, c).astype(total.dtype)
        return total


def _pass_over(
    site: Site,
    traces: Sequence[Values],
    signals: Sequence[Values],
    total: Array,
    data: Values | None,
    now: Float[Array, "*y"] | None,
    moves: Sequence[Moves] | None,
) -> tuple[list[list[Array]], Array]:
    """(new traces, `total` plus the gradient of the weight), in one pass of the trace kernel.

    `signals`, of each place and slot and shaped as y, meet the old traces. With `now`, the
    derivative with respect to y of the only step of `data` (time first), that step's own gradient
    is added. With `moves` the traces are carried through the steps of `data`. Without, everything
    may have an axis of further samples in front, after that of time.
    """
    [[some, *_], *_], across = traces, site.rule.outer_layout == "io"
    dtype, samples = some.dtype, some.size // site.weight.size
    outputs = site.y.size * site.weight.size // math.prod(site.trace_shape)
    inputs = site.weight.size // outputs
    matrix = (inputs, outputs) if across else (outputs, inputs)
    by_sample = lambda v: v.astype(dtype).reshape(samples, outputs)
    by_time = lambda d: jnp.swapaxes(d.astype(dtype).reshape(-1, samples, outputs), 0, 1)
    x = jnp.zeros((samples, 0, inputs), dtype)
    if data is not None:
        x = site.rule.outer(list(data)).astype(dtype)
        x = jnp.swapaxes(x.reshape(x.shape[0], samples, inputs), 0, 1)
    fits = total.dtype == dtype
    gradient = total.reshape(matrix) if fits else jnp.zeros(matrix, dtype)
    new = []
    for k, (signal, old) in enumerate(zip(signals, traces, strict=True)):
        rows, drives = ((), ()) if moves is None else moves[k]
        operands = Operands(
            gradient=gradient,
            x=x,
            now=None if now is None or k else by_sample(now),
            signal=tuple(map(by_sample, signal)),
            old=tuple(e.reshape(samples, *matrix) for e in old),
            rows=jax.tree.map(by_sample, rows),
            drive=jax.tree.map(by_time, drives),
        )
        gradient, moved = advance_and_contract(across, operands)
        new.append([e.reshape(site.trace_shape) for e in moved])
    gradient = gradient.reshape(total.shape)
    return new, gradient if fits else total + gradient.astype(total.dtype)
