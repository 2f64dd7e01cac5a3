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
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Inexact, PyTree

from .._precision import wide
from ..analysis import CellGraph, moved_leaves, with_layers
from ..step import Values
from ._carrier import StepSignals, TraceCarrier, Traces, trace_dtype
from ._draws import Draws
from ._per_sample import step_gradient, weight_cotangents
from ._sensitivity import Sensitivity, layer_signal, layer_sizes
from ._slots import nbytes, of_samples
from ._zeros import of_part, of_samples_alone

# added to the norms, so that a start at zero has a ratio: a part of their rounding in float32
_EPSILON = 1e-7


class Product(NamedTuple):
    """`state` times `weights`, for each site the part of its weight that a sample meets."""

    draws: Draws
    state: Float[Array, "B n"]
    weights: list[Inexact[Array, "B ..."]]


@dataclasses.dataclass(frozen=True)
class RankOne(TraceCarrier):
    """`dtype`: of the traces of weights; by default that of y, at least float32.

    >>> from braintrace import rules
    >>> rules.RankOne().longest_window  # a draw for each step
    1
    """

    dtype: DTypeLike | None = None

    approximation = "an unbiased random estimate: one product of two vectors stands for all"

    @property
    def longest_window(self) -> int | None:
        return 1  # a draw for each step

    def arrange(self, graph: CellGraph) -> CellGraph:
        return with_layers(graph, together=True, places=False)

    def zeros(self, graph: CellGraph) -> PyTree:
        size = sum(layer_sizes(graph))
        dtype = jnp.result_type(jnp.float32, *(graph.carry[k].dtype for k in graph.hidden))
        weights = [of_part(graph, site, trace_dtype(site, self.dtype)) for site in graph.sites]
        return Product(Draws.zeros(graph), of_samples_alone(graph, dtype, size), weights)

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
        signs = draws.signs(old.shape[1], old.dtype) * moved_elements(graph)
        pushed = moved.pushed(old).astype(old.dtype)
        own = weight_cotangents(moved, signs, local.data)
        of_old, of_own = _scales(weights, pushed), _scales(own, signs)
        both = lambda k, a, b: _scaled(of_old[k], a) + _scaled(of_own[k], b)
        return Product(
            draws.moved(),
            both(0, pushed, signs).astype(old.dtype),
            [both(1, w, v).astype(w.dtype) for w, v in zip(weights, own, strict=True)],
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
            parts = jax.vmap(_scaled)(met.astype(jnp.finfo(w.dtype).dtype), w).sum(0)
            total = of_samples(graph, site, parts)
            if now is not None:
                total = total + step_gradient(site, now.data[n], now.drives[n])
            found.append(total)
        return found


def moved_elements(graph: CellGraph) -> Bool[np.ndarray, " n"]:
    """Which state elements of a sample parameters move: the others have no influence to draw."""
    assert graph.layers is not None
    moved, [leaves] = moved_leaves(graph), graph.layers.leaves
    return np.concatenate([np.full(graph.sample_size(k), k in moved) for k in leaves])


def _scaled(factors: Float[Array, " B"], values: Inexact[Array, "B ..."]) -> Array:
    """Values of each sample times its factor; a factor of zero leaves nothing of any value."""
    factors = _along(factors, values)
    return jnp.where(factors == 0, 0, factors * values)


def _along(values: Array, like: Array) -> Array:
    """A value of each sample, to broadcast against `like` (B, ...)."""
    return values.reshape(-1, *[1] * (like.ndim - 1))


def _scales(
    weights: Sequence[Inexact[Array, "B ..."]], state: Float[Array, "B n"]
) -> tuple[Float[Array, " B"], Float[Array, " B"]]:
    """What makes the norms of both sides of a product equal, of its state and of its weights; zero
    for both where it is zero, after a reset say.
    """
    every = lambda v: tuple(range(1, v.ndim))
    square = lambda v: jnp.square(jnp.abs(v.astype(wide(v.dtype)))).sum(every(v))
    norms = jnp.sqrt(sum(map(square, weights))), jnp.sqrt(square(state))
    scale = jnp.sqrt((norms[0] + _EPSILON) / (norms[1] + _EPSILON))
    nothing = (norms[0] == 0) | (norms[1] == 0)
    return jnp.where(nothing, 0, scale), jnp.where(nothing, 0, 1 / scale)
