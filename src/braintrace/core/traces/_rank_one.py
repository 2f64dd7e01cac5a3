"""The carrier of a random product of two vectors in place of the whole influence, sample by sample.

    J ~ s theta^T,        s of the n state elements, theta of all parameters

With nu one sign for each state element and D, I the derivatives of a step,

    w = nu^T I            s <- a D s + b nu            theta <- theta / a + w / b
    a = sqrt(|theta| / |D s|)                          b = sqrt(|w| / |nu|)

E[nu nu^T] = 1, and a and b are even in nu, so that E[s theta^T] = J at every step. D s is one pass
through the step, and w another. Memory O(B (n + |theta|)).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Inexact

from .._precision import wide
from ..analysis import CellGraph, with_layers
from ..step import Values
from ._carrier import StepSignals, TraceCarrier, Traces, trace_dtype
from ._draws import Draws
from ._per_sample import step_gradient, weight_cotangents
from ._sensitivity import Sensitivity, layer_signal, layer_sizes
from ._slots import nbytes, of_samples, part_shape

# added to the norms, so that a start at zero has a ratio: a part of their rounding in float32
_EPSILON = 1e-7


class Product(NamedTuple):
    """`state` times `weights`, for each site the part of its weight that a sample meets."""

    draws: Draws
    state: Float[Array, "B n"]
    weights: list[Inexact[Array, "B ..."]]


@dataclasses.dataclass(frozen=True)
class RankOne(TraceCarrier):
    """`dtype`: of the traces of weights; by default that of y, at least float32."""

    dtype: DTypeLike | None = None

    approximation = "an unbiased random estimate: one product of two vectors stands for all"

    @property
    def longest_window(self) -> int | None:
        return 1  # a draw for each step

    def arrange(self, graph: CellGraph) -> CellGraph:
        return with_layers(graph, together=True, places=False)

    def init(self, graph: CellGraph) -> Traces:
        size = sum(layer_sizes(graph))
        dtype = jnp.result_type(jnp.float32, *(graph.carry[k].dtype for k in graph.hidden))
        weights = [
            jnp.zeros((graph.samples, *part_shape(graph, site)), trace_dtype(site, self.dtype))
            for site in graph.sites
        ]
        return Product(Draws.of(graph), jnp.zeros((graph.samples, size), dtype), weights)

    def of_site(self, traces: Traces, site: int) -> Traces:
        return traces.weights[site]

    def working_bytes(self, graph: CellGraph, steps: int) -> int:
        """The step's own part of `weights`."""
        return nbytes(jax.eval_shape(lambda: self.init(graph)).weights)

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        draws, old, weights = before
        if not weights:
            return before
        assert local.layers is not None
        [moved] = local.layers
        signs = draws.signs(old.shape[1], old.dtype)
        pushed = moved.pushed(old).astype(old.dtype)
        own = weight_cotangents(moved, signs, local.data)
        kept = _ratio(_norm(weights), _norm([pushed]))
        added = _ratio(_norm(own), _norm([signs]))
        sum_of = lambda w, v: (w / _along(kept, w) + v / _along(added, v)).astype(w.dtype)
        return Product(
            draws.moved(),
            (kept[:, None] * pushed + added[:, None] * signs).astype(old.dtype),
            [sum_of(*pair) for pair in zip(weights, own, strict=True)],
        )

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        clear = lambda v: jnp.where(_along(marks, v), 0, v)
        return traces._replace(
            state=clear(traces.state), weights=[clear(v) for v in traces.weights]
        )

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        if not traces.weights:
            return []
        a = jax.vmap(lambda *hidden: layer_signal(graph, 0, hidden))(*entry)
        met = (a * traces.state).sum(2)
        found = []
        for n, (site, w) in enumerate(zip(graph.sites, traces.weights, strict=True)):
            w = w.astype(wide(w.dtype))
            parts = jax.vmap(_each_times)(met.astype(jnp.finfo(w.dtype).dtype), w).sum(0)
            total = of_samples(graph, site, parts)
            if now is not None:
                total = total + step_gradient(site, now.data[n], now.drives[n])
            found.append(total)
        return found


def _each_times(factors: Float[Array, " B"], values: Inexact[Array, "B ..."]) -> Array:
    """Values of each sample times its factor; a factor of zero leaves nothing of any value."""
    factors = _along(factors, values)
    return jnp.where(factors == 0, 0, factors * values)


def _along(values: Array, like: Array) -> Array:
    """A value of each sample, to broadcast against `like` (B, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _norm(parts: Sequence[Inexact[Array, "B ..."]]) -> Float[Array, " B"]:
    """Of the parts together, sample by sample."""
    square = lambda v: jnp.square(jnp.abs(v.astype(wide(v.dtype))))
    return jnp.sqrt(sum(square(v).reshape(v.shape[0], -1).sum(1) for v in parts))


def _ratio(a: Float[Array, " B"], b: Float[Array, " B"]) -> Float[Array, " B"]:
    return jnp.sqrt((a + _EPSILON) / (b + _EPSILON))
