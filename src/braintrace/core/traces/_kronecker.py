"""The carrier of a few Kronecker products in place of the whole influence, sample by sample.

A weight operation is linear in its weight and in its data: the influence of W on the n state
elements goes through x (x) F, with x the data and F = dh/dy, and is that of the pairs of elements
of x and y, pulled back to W by the operation. It is kept as

    J ~ sum_i u_i (x) A_i,          u_i shaped as x,  A_i n times m for m elements of y

and a step makes r + 1 terms, (u_i, D A_i) and (x, F), of which a random choice of signs makes r
again, without a bias. Sites whose y add up have one sum, with their data side by side; the data of
a parameter that is added, or acts element by element, is 1. Where x has no more elements than there
are terms, J is kept as it is, and exact. Memory O(B r (I + n m)); time O(B r n^2 m) and n reverse
passes for a step.
"""

import dataclasses
import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, Inexact, PyTree

from ..analysis import CellGraph, Site, with_layers
from ..step import Values
from ._carrier import StepSignals, TraceCarrier, Traces, represented, represented_shape, trace_dtype
from ._draws import Draws
from ._per_sample import step_gradient
from ._reduction import EXACT, mixed, reduced
from ._sensitivity import Sensitivity, every_drive, layer_signal, layer_sizes, zero_perturbations
from ._slots import nbytes, of_samples
from ._zeros import of_samples_alone


class Terms(NamedTuple):
    """Of the sites of one sum; without `left` there is a term for each element of their data."""

    left: Inexact[Array, "B r I"] | None
    right: Inexact[Array, "B r n m"]


class Products(NamedTuple):
    """`terms` at the first site of each sum, None at the others."""

    draws: Draws
    terms: list[Terms | None]


@dataclasses.dataclass(frozen=True)
class Kronecker(TraceCarrier):
    """`rank`: the number of terms; `optimal`: whether their choice has the least variance, or is
    the plain mixture of two, at rank 1.

    `dtype`: of the traces; by default that of y, at least float32.

    >>> from braintrace import rules
    >>> rules.Kronecker(4).optimal
    True
    """

    rank: int = 1
    optimal: bool = True
    dtype: DTypeLike | None = None

    @property
    def longest_window(self) -> int | None:
        return 1  # a draw for each step

    def arrange(self, graph: CellGraph) -> CellGraph:
        return with_layers(graph, together=True, places=False)

    def approximates(self, graph: CellGraph, site: Site) -> str:
        [sites] = [of for of in _sums(graph).values() if graph.sites.index(site) in of]
        width, entries = self._shape(graph, sites)
        if width <= self.rank or (self.optimal and entries <= self.rank):
            return ""
        some = "a Kronecker product stands" if self.rank == 1 else f"{self.rank} products stand"
        return f"an unbiased random estimate: {some} for all"

    def _shape(self, graph: CellGraph, sites: list[int]) -> tuple[int, int]:
        """Elements of the data, and of n times y, in the sum of these sites."""
        size, site = sum(layer_sizes(graph)), graph.sites[sites[0]]
        y = site.y.size if graph.y_axis(site) is None else site.y.size // graph.samples
        return sum(_width(graph, graph.sites[n]) for n in sites), size * y

    def zeros(self, graph: CellGraph) -> PyTree:
        size = sum(layer_sizes(graph))
        terms: list[Terms | None] = [None] * len(graph.sites)
        for first, sites in _sums(graph).items():
            width, entries = self._shape(graph, sites)
            dtype, is_exact = trace_dtype(graph.sites[first], self.dtype), width <= self.rank
            count = width if is_exact else self.rank
            right = of_samples_alone(graph, dtype, count, size, entries // size)
            left = None if is_exact else of_samples_alone(graph, dtype, count, width)
            terms[first] = Terms(left, right)
        return Products(Draws.zeros(graph), terms)

    def of_site(self, traces: Traces, site: int) -> Traces:
        return traces.terms[site]

    def working_bytes(self, graph: CellGraph, steps: int) -> int:
        """The derivatives of every state element, and the terms before there is one less."""
        size, own = sum(layer_sizes(graph)), nbytes(jax.eval_shape(lambda: self.init(graph)))
        state = jnp.result_type(*(graph.carry[k].dtype for k in graph.hidden), jnp.float32)
        drives = size * nbytes(zero_perturbations(graph))
        return drives + graph.samples * size**2 * state.itemsize + 2 * own

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        sums = _sums(graph)
        if not sums:
            return before
        assert local.layers is not None
        [moved] = local.layers
        rows, drives = moved.of(jnp.arange(sum(layer_sizes(graph))))
        drives, dynamics = every_drive(graph, drives), jnp.swapaxes(rows, 0, 1)
        terms = list(before.terms)
        drawing = [first for first in sums if before.terms[first].left is not None]
        drawn = before.draws.signs((self.rank + 1) * max(len(drawing), 1), rows.dtype)
        signs = iter(jnp.split(drawn, max(len(drawing), 1), axis=1))
        for first, sites in sums.items():
            left, right = before.terms[first]
            x = jnp.concatenate(
                [_of_samples(graph, graph.sites[n], local.data[n], right.dtype) for n in sites], 1
            )
            f = _drive(graph, graph.sites[first], drives[first]).astype(right.dtype)
            pushed = jnp.einsum(
                "bij,brjm->brim", dynamics.astype(right.dtype), right, precision=EXACT
            )
            if left is None:
                terms[first] = Terms(None, pushed + jnp.einsum("br,bnm->brnm", x, f))
                continue
            left = jnp.concatenate([left, x[:, None]], 1)
            right = jnp.concatenate([pushed, f[:, None]], 1)
            terms[first] = self._with_one_less(left, right, next(signs))
        return Products(before.draws.moved(), terms)

    def _with_one_less(
        self, left: Array, right: Inexact[Array, "B r n m"], signs: Float[Array, "B r"]
    ) -> Terms:
        flat = right.reshape(*right.shape[:2], -1)
        choose = jax.vmap(reduced if self.optimal else mixed)
        new_left, new_right = choose(left, flat, signs)
        return Terms(
            new_left.astype(left.dtype),
            new_right.reshape(-1, self.rank, *right.shape[2:]).astype(right.dtype),
        )

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        clear = lambda v: jnp.where(marks.reshape(-1, *[1] * (v.ndim - 1)), 0, v)
        return traces._replace(terms=jax.tree.map(clear, traces.terms))

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        found: list[Array] = [jnp.zeros(())] * len(graph.sites)
        for first, sites in _sums(graph).items():
            left, right = traces.terms[first]
            a = jax.vmap(functools.partial(_flat, graph))(list(entry)).astype(
                jnp.finfo(right.dtype).dtype
            )
            met = jnp.einsum("sbn,sbrnm->srbm", a, right, precision=EXACT)
            if left is None:
                one = jnp.eye(right.shape[2], dtype=right.dtype)
                left = jnp.broadcast_to(one, (*right.shape[:2], *one.shape))
            of_terms = jnp.swapaxes(left, 1, 2)
            start = 0
            for n in sites:
                site, width = graph.sites[n], _width(graph, graph.sites[n])
                u = of_terms[..., start : start + width]
                merge = lambda v: v.reshape(-1, *v.shape[2:])
                found[n] = _gradient(graph, site, merge(u), merge(met))
                start += width
        if now is None:
            return found
        own = zip(found, graph.sites, now.data, now.drives, strict=True)
        return [total + step_gradient(site, data, drive) for total, site, data, drive in own]


def _flat(graph: CellGraph, hidden: Values) -> Float[Array, "B n"]:
    return layer_signal(graph, 0, hidden)


def _sums(graph: CellGraph) -> dict[int, list[int]]:
    """By the number of its first site, the sites of each sum."""
    found: dict[int, list[int]] = {}
    for n, first in enumerate(graph.first_of_sum):
        found.setdefault(first, []).append(n)
    return found


def _width(graph: CellGraph, site: Site) -> int:
    """Elements of a site's data in one sample."""
    if not site.is_operation:
        return 1
    size = math.prod(represented_shape(site))
    return size if graph.data_axis(site) is None else size // graph.samples


def _of_samples(
    graph: CellGraph, site: Site, data: list[Array], dtype: DTypeLike
) -> Inexact[Array, "B I"]:
    """The data of the only step, sample by sample."""
    if not site.is_operation:
        return jnp.ones((graph.samples, 1), dtype)
    x, axis = represented(site, [d[0] for d in data], dtype), graph.data_axis(site)
    if axis is None:
        return jnp.broadcast_to(x.reshape(1, -1), (graph.samples, x.size))
    return axis.apart(x).reshape(graph.samples, -1)


def _drive(graph: CellGraph, site: Site, drive: Array) -> Inexact[Array, "B n m"]:
    """dh/dy of the only step, sample by sample, out of (n, 1, *shape of y); of a y that the samples
    share (n, B, 1, *shape of y).
    """
    axis, size = graph.y_axis(site), drive.shape[0]
    if axis is not None:
        apart = axis.apart(drive[:, 0], 1)
    else:
        apart = drive[:, :, 0] if graph.samples > 1 else drive
    return jnp.swapaxes(apart.reshape(size, graph.samples, -1), 0, 1)


def _gradient(
    graph: CellGraph, site: Site, u: Inexact[Array, "r B I"], c: Inexact[Array, "r B m"]
) -> Array:
    """The sum over terms of the operation's weight gradient at data u and the cotangent c of y."""
    y_axis, x_axis, terms, samples = graph.y_axis(site), graph.data_axis(site), *c.shape[:2]
    shape = represented_shape(site) if site.is_operation else site.y.shape
    if y_axis is None:  # one for all samples
        c = c.reshape(terms * samples, *site.y.shape)
        u = u.reshape(terms * samples, *(shape if site.is_operation else [1] * len(shape)))
        return site.rule.weight_gradient_sum(u, c) if site.is_operation else (u * c).sum(0)
    c = c.reshape(terms, samples, *y_axis.sample_shape(site.y.shape))
    if not site.is_operation:
        ones = jax.vmap(lambda v: y_axis.along(v, len(shape)))(u[..., 0])
        return (ones * jax.vmap(y_axis.together)(c)).sum(0)
    if x_axis is None:  # a weight with a part for each sample
        each = jax.vmap(site.rule.weight_gradient_sum, in_axes=1)
        return of_samples(graph, site, each(u.reshape(terms, samples, *shape), c))
    u = jax.vmap(x_axis.together)(u.reshape(terms, samples, *x_axis.sample_shape(shape)))
    return site.rule.weight_gradient_sum(u, jax.vmap(y_axis.together)(c))
