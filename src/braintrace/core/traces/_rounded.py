"""Traces that are stored in bfloat16, rounded at random, so that they are right on average.

    E_t = round(f(E_{t-1}))         f: what the algorithm does, in float32
    round(v) is one of the two neighbours of v, by chances with the mean v

To the nearest, a trace that leaks by less than half of the last bit in a step never leaks, and what
is smaller than that is never added.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, PyTree, UInt32

from .._domains import described
from .._errors import CompilationError, UsageError
from ..analysis import CellGraph, Site
from ..step import Values
from ._carrier import Carrier, Cotangents, FactorCarrier, StepSignals, Sums, TraceCarrier, Traces
from ._draws import Draws
from ._per_parameter import PerParameter
from ._sensitivity import Sensitivity


@dataclasses.dataclass(frozen=True)
class StochasticRounding:
    """A `trace_dtype`: traces are stored in `dtype`, bfloat16, rounded up or down by chances whose
    mean is the number itself.

    A step is computed in float32, and its traces are rounded where they are stored: once in a
    window. The chances are a hash of a key (`learner.init(..., key=)`), of how many times traces
    were stored before, and of the position, so that one call gives what several give.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> from braintrace import rules
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> rounding = rules.StochasticRounding("bfloat16")
    >>> learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h, trace_dtype=rounding)
    >>> learner.report.counts["exact"], learner.init(w, h).traces.traces[0][0][0].dtype.name
    (0, 'bfloat16')
    """

    dtype: DTypeLike = "bfloat16"

    def __post_init__(self) -> None:
        with contextlib.suppress(TypeError):
            if jnp.dtype(self.dtype) == jnp.bfloat16:
                object.__setattr__(self, "dtype", jnp.dtype(jnp.bfloat16))
                return
        raise UsageError(
            "Invalid dtype of StochasticRounding.",
            got=described(self.dtype),
            expected="bfloat16",
            do="pass trace_dtype=jnp.float16, say, which rounds to the nearest",
        )


class Stored(NamedTuple):
    """Traces as they are stored, and where the chances come from."""

    traces: Traces
    draws: Draws


class _InJax(PerParameter):
    """Whose traces are read and written as they are stored, by one fused pass."""

    kernel = False


def rounded(carrier: Carrier, rounding: StochasticRounding) -> Carrier:
    """The carrier, whose traces are stored by `rounding`."""
    return _stored_by(carrier, jnp.dtype(rounding.dtype))


def _stored_by(carrier: Carrier, dtype: DTypeLike | None) -> "_Rounded":
    kind = RoundedFactors if isinstance(carrier, FactorCarrier) else RoundedTraces
    if type(carrier) is PerParameter:
        carrier = _InJax(carrier.dtype, carrier.clip)
    return kind(carrier, dtype)


def unrounded(carrier: Carrier) -> Carrier:
    """The carrier whose traces are stored otherwise, or itself."""
    return carrier.inner if isinstance(carrier, _Rounded) else carrier


@dataclasses.dataclass(frozen=True)
class _Rounded(Carrier):
    """`inner`, which sees its traces in its own dtypes."""

    inner: Any
    dtype: DTypeLike | None

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> "_Rounded":
        return _stored_by(self.inner.resolve(graph, leak_of), self.dtype)

    def arrange(self, graph: CellGraph) -> CellGraph:
        return self.inner.arrange(graph)

    def approximates(self, graph: CellGraph, site: Site) -> str:
        return self.inner.approximates(graph, site)

    def warnings(self, graph: CellGraph, site: Site) -> list[str]:
        return self.inner.warnings(graph, site)

    def zeros(self, graph: CellGraph) -> PyTree:
        narrow = lambda _, v: dataclasses.replace(v, dtype=jnp.dtype(jnp.bfloat16))
        zeros = _of_sites(self.inner, graph, narrow, self.inner.zeros(graph))
        return Stored(zeros, Draws.zeros(graph))

    def of_site(self, traces: Traces, site: int) -> Traces:
        return self.inner.of_site(traces.traces, site)

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        return self._stored(
            graph, before, self.inner.advance(graph, self._own(graph, before), local)
        )

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        return traces._replace(traces=self.inner.reset(graph, traces.traces, marks))

    def report(self, graph: CellGraph, traces: Traces, signals: StepSignals) -> PyTree:
        traces = None if traces is None else self._own(graph, traces)
        return self.inner.report(graph, traces, signals)

    @property
    def longest_window(self) -> int | None:
        return self.inner.longest_window

    def useful_window(self, graph: CellGraph) -> int:
        return self.inner.useful_window(graph)

    def _own(self, graph: CellGraph, stored: Stored) -> Traces:
        like = jax.eval_shape(lambda: self.inner.init(graph))
        return jax.tree.map(lambda v, own: v.astype(own.dtype), stored.traces, like)

    def _stored(self, graph: CellGraph, before: Stored, traces: Traces) -> Stored:
        draws = before.draws
        chances = functools.partial(_chances, draws.key, draws.steps[0])
        store = lambda number, v: rounded_by(chances(number, v.shape), v)
        return Stored(_of_sites(self.inner, graph, store, traces), draws.moved())


@dataclasses.dataclass(frozen=True)
class RoundedTraces(_Rounded, TraceCarrier):
    """Of a `TraceCarrier`."""

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        return self.inner.contract(graph, self._own(graph, traces), entry, now)

    @property
    def reads_step(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.reads_step

    def read(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        # what is read may have another form than the traces
        return self.inner.read(graph, self._own(graph, before), local)

    def gradients(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[Array]:
        return self.inner.gradients(graph, before, after, signals)

    def advance_and_contract(
        self, graph: CellGraph, before: Traces, local: Sensitivity, signals: Cotangents, sums: Sums
    ) -> tuple[Traces, Sums]:
        own = self._own(graph, before)
        after, sums = self.inner.advance_and_contract(graph, own, local, signals, sums)
        return self._stored(graph, before, after), sums

    def adds_now(self, graph: CellGraph, site: Site) -> bool:
        return self.inner.adds_now(graph, site)

    def working_bytes(self, graph: CellGraph, steps: int) -> int:
        return self.inner.working_bytes(graph, steps)


@dataclasses.dataclass(frozen=True)
class RoundedFactors(_Rounded, FactorCarrier):
    """Of a `FactorCarrier`."""

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        return self.inner.contract(graph, self._own(graph, traces), entry)

    @property
    def pairs(self) -> int:
        return self.inner.pairs

    def decays(self, graph: CellGraph, site: Site) -> tuple[float, ...]:
        return self.inner.decays(graph, site)

    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        own = self._own(graph, before), self._own(graph, after)
        return self.inner.factors(graph, *own, signals)


def rounded_by(bits: UInt32[Array, "..."], values: Float[Array, "..."]) -> Float[Array, "..."]:
    """`values` in bfloat16, up where the low half of float32 and 16 `bits` together overflow."""
    values = values.astype(np.float32)
    pattern = jax.lax.bitcast_convert_type(values, np.uint32) + (bits >> 16)
    cut = jax.lax.bitcast_convert_type((pattern >> 16).astype(np.uint16), jnp.bfloat16)
    return jnp.where(jnp.isfinite(values), cut, values.astype(jnp.bfloat16))


def _chances(
    key: UInt32[Array, "2"], step: Array, number: int, shape: tuple[int, ...]
) -> UInt32[Array, "..."]:
    """32 bits for each element of the leaf of this number: a hash, by MurmurHash3's finalizer."""
    size = math.prod(shape)
    mixed = jax.lax.iota(np.uint32, size) * np.uint32(0x9E3779B9) + np.uint32(
        number * 0xC2B2AE35 & 0xFFFFFFFF
    )
    mixed = (mixed ^ key[0]) + _scrambled(step.astype(np.uint32) * np.uint32(0x85EBCA6B) ^ key[1])
    return _scrambled(mixed).reshape(shape)


def _scrambled(h: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    h = (h ^ (h >> 16)) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * np.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def _of_sites(
    carrier: Carrier, graph: CellGraph, store: Callable[[int, Any], Any], traces: PyTree
) -> PyTree:
    """Traces, or what they are at first, whose numbers that belong to weights are stored; counts
    are not.
    """
    leaves, structure = jax.tree.flatten(traces)
    numbers = structure.unflatten(range(len(leaves)))
    owned = {
        k for n in range(len(graph.sites)) for k in jax.tree.leaves(carrier.of_site(numbers, n))
    }
    for k in sorted(owned):
        if jnp.issubdtype(leaves[k].dtype, np.complexfloating):
            raise CompilationError(
                "Complex traces cannot be rounded to bfloat16.",
                got=f"a trace of {leaves[k].dtype}",
                expected="real states",
                do="leave trace_dtype out",
            )
        if jnp.issubdtype(leaves[k].dtype, np.floating):
            leaves[k] = store(k, leaves[k])
    return structure.unflatten(leaves)
