"""The carrier of the local traces and a sketch of what they leave out, with a running bound.

With J the influence of the weights on all the hidden state of a sample (n elements) and S the
traces of `PerParameter`,

    E' = D (S + L R^T) + F x - S'         what the new traces leave out
    L  <- the first r left singular vectors of E',   R^T <- L^T E'
    e  <- ||D||_2 e + ||E' - L R^T||_F    so that ||J - S - L R^T||_F <= e

E' is asked for by rows, r at a time. L comes from E' E'^T, whose rounding moves the directions a
little and not what is kept or lost: both are found by projection. With r = n nothing is lost.
Memory O(B (|theta| + r (|theta| + n))) between steps, and O(B n (n + |y|)) beside it while they are
moved; time O(B (n |theta| + n^3)) a step.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, PyTree

from .._precision import wide
from ..analysis import CellGraph, Exactness, ParameterRow, with_layers
from ..step import Values
from ._carrier import StepSignals, TraceCarrier, Traces
from ._left_out import Known, Layout, Moved, Parts, squared_norm
from ._per_parameter import OfSite, PerParameter
from ._per_sample import step_gradient
from ._sensitivity import Sensitivity, every_drive, layer_signal, layer_sizes
from ._slots import nbytes, of_samples
from ._zeros import of_part, of_samples_alone


class ErrorBound(NamedTuple):
    """What `sk_rtrl` knows of the gradient that each step adds, sample by sample.

    The gradient is that of the weights that act on the state, as the step reads them: the
    parameters themselves, or what the model makes of them (a mask, a softplus). Both norms are of
    all these weights together, and of the loss as it is weighted in the sum. In exact arithmetic
    the error is at most `error`; rounding comes on top.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := jnp.tanh(h @ w + x)), h)
    >>> w, h, xs = jnp.eye(3) + 0.1, jnp.zeros((2, 3)), jnp.ones((5, 2, 3))
    >>> learner = braintrace.compile(cell, "sk_rtrl", xs[0], params=w, carry=h, rank=1)
    >>> *_, info = learner.etrace_grad(
    ...     w, learner.init(w, h), xs, loss_fn=lambda out: out.sum(-1)
    ... )
    >>> isinstance(info.by_step, braintrace.ErrorBound), info.by_step.informative.shape
    (True, (5, 2))

    Attributes:
        error: the most by which the step's gradient differs from the exact one (Frobenius norm);
            inf where the bound has overflowed.
        gradient: the norm of the step's gradient.
    """

    __module__ = "braintrace"

    error: Float[Array, "T B"]
    gradient: Float[Array, "T B"]

    @property
    def informative(self) -> Bool[Array, "T B"]:
        """Where the gradient is longer than its error may be: elsewhere the bound says nothing, not
        even of its direction.
        """
        return self.error < self.gradient


class Sketched(NamedTuple):
    """The traces: by site, those by position (or None) and R of the weight at its first site (or
    None); L; and the bound e of each sample (or None).
    """

    sites: list[tuple[OfSite | None, Array | None]]
    left: Float[Array, "B n r"] | None
    error: Float[Array, " B"] | None


@dataclasses.dataclass(frozen=True)
class Sketch(TraceCarrier):
    """`rank`: r, or all n elements where it is larger. `certificate`: whether e is carried.
    `dtype`: of the traces; by default that of y, at least float32.
    """

    rank: int
    certificate: bool = True
    dtype: DTypeLike | None = None

    @property
    def longest_window(self) -> int | None:
        return 1  # each step is sketched

    def arrange(self, graph: CellGraph) -> CellGraph:
        """All hidden state as one layer, with the graph by position beside it: that of the sites
        whose traces are those of one weight operation.
        """
        whole = with_layers(graph, together=True, places=False)
        edges = {site.edge for site in whole.sites}
        own = [s for s in graph.sites if s.edge in edges and s.places and not s.chain]
        full = self.rank >= sum(layer_sizes(whole))
        untraced = {k for s in graph.sites if s.places and s not in own for k in s.params}
        pairs = enumerate(zip(graph.parameters, whole.parameters, strict=True))
        rows = [self._row(*pair, traced=k not in untraced) for k, pair in pairs]
        return dataclasses.replace(
            whole,
            parameters=whole.parameters if full else tuple(rows),
            positions=dataclasses.replace(graph, sites=tuple(own)),
        )

    def _row(self, own: ParameterRow, row: ParameterRow, traced: bool) -> ParameterRow:
        """What is certified of a parameter: what its trace alone is, if each site has one."""
        kept = traced and own.exactness is Exactness.EXACT
        if row.exactness is not Exactness.EXACT or kept:
            return row
        reason = f"a sketch of rank {self.rank} stands for what its trace leaves out"
        kind = Exactness.APPROXIMATE
        return dataclasses.replace(row, exactness=kind, reason=reason, dropped=own.dropped)

    def _layout(self, graph: CellGraph) -> Layout:
        return Layout(graph, None if self.dtype is None else np.dtype(self.dtype))

    def _rank(self, graph: CellGraph) -> int:
        return min(self.rank, *layer_sizes(graph)) if graph.hidden else 0

    def zeros(self, graph: CellGraph) -> PyTree:
        layout, rank = self._layout(graph), self._rank(graph)
        own = PerParameter(self.dtype).zeros(layout.positions)
        right = [
            of_part(graph, graph.sites[first], layout.part_dtype(k), rank)
            for k, (first, *_) in enumerate(layout.weights)
        ]
        dtype = _real(graph)
        left = of_samples_alone(graph, dtype, layer_sizes(graph)[0], rank) if rank else None
        error = of_samples_alone(graph, dtype) if self.certificate else None
        return _sketched(layout, Known(own, left, right if rank else None), error)

    def of_site(self, traces: Traces, site: int) -> Traces:
        return traces.sites[site]

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        """Those by position; D moves the others."""
        layout, known = self._layout(graph), _known(self._layout(graph), traces)
        own = PerParameter(self.dtype).reset(layout.positions, known.own, marks)
        return _sketched(layout, known._replace(own=own), traces.error)

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        layout, known = self._layout(graph), _known(self._layout(graph), before)
        if not layout.weights:
            return before
        assert local.layers is not None and local.positions is not None
        own = PerParameter(self.dtype).advance(layout.positions, known.own, local.positions)
        if known.left is None and before.error is None:
            return _sketched(layout, Known(own, None, None), None)
        dtype = _real(graph)
        rows, drives = local.layers[0].of(jnp.arange(layer_sizes(graph)[0]))
        rows = jnp.swapaxes(rows, 0, 1).astype(dtype)
        drives = [d[:, 0].astype(wide(d.dtype)) for d in every_drive(graph, drives)]
        data = layout.data_of([[d[0] for d in of_site] for of_site in local.data])
        moved = Moved(rows, layout.drives_of(drives, 1), data, layout.samples_of(own))
        # of a sample that is reset nothing old is read
        begins = (rows == 0).all((1, 2))
        old = known._replace(own=layout.samples_of(known.own))
        old = jax.tree.map(lambda v: _where(begins, 0, v), old)
        move = functools.partial(self._move, layout, self._rank(graph))
        left, right, lost = jax.vmap(move)(old, moved)
        error = before.error
        if error is not None and lost is not None:
            grown = jnp.where(begins, 0, jax.vmap(growth)(rows) * error)
            error = (grown + lost).astype(error.dtype)
        return _sketched(layout, Known(own, left, right), error)

    def _move(
        self, layout: Layout, rank: int, known: Known, moved: Moved
    ) -> tuple[Array | None, list[Array] | None, Array | None]:
        """(L, R, the norm of what they lose) after the step, of one sample."""
        ask = lambda direction: layout.left_out(known, moved, direction)
        n, dtype = moved.rows.shape[0], moved.rows.dtype
        several = max(1, min(rank, n))
        count = -(-n // several)
        every = jnp.eye(count * several, n, dtype=dtype).reshape(count, several, n)
        left, right = jnp.zeros((n, 0), dtype), None
        if rank:
            left = jnp.eye(n, dtype=dtype)
            if rank < n:
                left = _first_directions(ask, every, rank)
            right = [r.astype(layout.part_dtype(k)) for k, r in enumerate(jax.vmap(ask, 1)(left))]
        if not self.certificate:
            return left, right, None

        def lost(total: Array, directions: Array) -> tuple[Array, None]:
            found, kept = jax.vmap(ask)(directions), directions @ left
            if right is not None:
                like = lambda r: jnp.tensordot(kept, r, 1, precision="highest")
                found = [f - like(r) for f, r in zip(found, right, strict=True)]
            return total + squared_norm(found).astype(total.dtype), None

        total, _ = jax.lax.scan(lost, jnp.zeros((), dtype), every)
        return (left, right, jnp.sqrt(total)) if rank else (None, None, jnp.sqrt(total))

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        layout, known = self._layout(graph), _known(self._layout(graph), traces)
        found = [jnp.zeros(site.weight.shape, wide(site.weight.dtype)) for site in graph.sites]
        if now is not None:
            steps = zip(graph.sites, now.data, now.drives, strict=True)
            found = [step_gradient(*of_site) for of_site in steps]
        own = PerParameter(self.dtype).contract(layout.positions, known.own, entry)
        each = jax.vmap(functools.partial(_of_sketch, layout))
        sketched = None if known.left is None else each(known._replace(own=[]), entry)
        for k, (numbers, of_own) in enumerate(zip(layout.weights, layout.own, strict=True)):
            parts = [own[n] for n in of_own]
            parts += [] if sketched is None else [sketched[k].sum(0)]
            for part in parts:
                found[numbers[0]] = found[numbers[0]] + part
        return found

    @property
    def reports_steps(self) -> bool:
        return self.certificate

    def report(self, graph: CellGraph, traces: Traces, signals: StepSignals) -> ErrorBound | None:
        if not self.certificate:
            return None
        traces = self.init(graph) if traces is None else traces
        layout, known = self._layout(graph), _known(self._layout(graph), traces)
        signal = layer_signal(graph, 0, signals.entry).astype(_real(graph))
        old = known._replace(own=layout.samples_of(known.own))
        old = jax.tree.map(lambda v: _where((signal == 0).all(1), 0, v), old)
        drives = [d[0].astype(wide(d.dtype)) for d in signals.drives]
        data = layout.data_of([[d[0] for d in of_site] for of_site in signals.data])
        parts = jax.vmap(layout.contracted)(old, data, signal, layout.drives_of(drives, 0))
        size = jnp.linalg.norm(signal, axis=1)
        gradient = jnp.sqrt(jax.vmap(squared_norm, axis_size=graph.samples)(parts))
        error = jnp.where(size == 0, 0, size * traces.error)
        return ErrorBound(error[None], gradient.astype(error.dtype)[None])

    def working_bytes(self, graph: CellGraph, steps: int) -> int:
        """The derivatives of the state and E' E'^T; the old traces, cleared of samples that are
        reset; and rows of E', as many as are asked for at once, with the terms that they are of.
        """
        rank = self._rank(graph)
        if not (rank or self.certificate):
            return 0
        [n], layout = layer_sizes(graph), self._layout(graph)
        parts = sum(
            math.prod(layout.part_shape(k)) * layout.part_dtype(k).itemsize
            for k in range(len(layout.weights))
        )
        square = graph.samples * n * n * _real(graph).itemsize
        drives = n * nbytes([graph.sites[k].y for k in graph.first_of_sum])
        rows = graph.samples * max(1, rank) * parts
        return 3 * square + 2 * drives + 4 * rows + nbytes(jax.eval_shape(lambda: self.init(graph)))


def growth(rows: Float[Array, "n n"]) -> Float[Array, ""]:
    """The most by which a step lengthens a difference of the state: the spectral norm of D."""
    return jnp.linalg.norm(rows, 2)


def _first_directions(
    ask: Callable[[Array], Parts], every: Float[Array, "count m n"], rank: int
) -> Float[Array, "n r"]:
    """The first left singular vectors of the matrix that `ask` gives the rows of."""
    n, dtype = every.shape[2], every.dtype
    meet = jax.linear_transpose(ask, jax.ShapeDtypeStruct((n,), dtype))

    def some(directions: Float[Array, "m n"]) -> Float[Array, "m n"]:
        return jax.vmap(lambda rows: meet(jax.tree.map(jnp.conj, rows))[0])(
            jax.vmap(ask)(directions)
        )

    square = jax.lax.map(some, every).reshape(-1, n)[:n]
    return jnp.linalg.eigh((square + square.T) / 2)[1][:, -rank:]


def _of_sketch(layout: Layout, known: Known, entry: Values) -> list[Array]:
    """For each weight, the gradient that `entry` and L R^T stand for."""
    graph, found = layout.graph, []
    assert known.left is not None and known.right is not None
    signal = layer_signal(graph, 0, entry).astype(known.left.dtype)
    silent = (signal == 0).all(1)
    met = jnp.einsum("bn,bnr->br", signal, known.left, precision="highest")
    for numbers, right in zip(layout.weights, known.right, strict=True):
        parts = jnp.einsum("br,br...->b...", met, right, precision="highest")
        found.append(of_samples(graph, graph.sites[numbers[0]], _where(silent, 0, parts)))
    return found


def _known(layout: Layout, traces: Sketched) -> Known:
    numbers = {site.edge: n for n, site in enumerate(layout.graph.sites)}
    own = [cast("OfSite", traces.sites[numbers[s.edge]][0]) for s in layout.positions.sites]
    right = None
    if traces.left is not None:
        right = [cast("Array", traces.sites[of[0]][1]) for of in layout.weights]
    return Known(own, traces.left, right)


def _sketched(layout: Layout, known: Known, error: Array | None) -> Sketched:
    own = dict(zip((s.edge for s in layout.positions.sites), known.own, strict=True))
    right = {}
    if known.right is not None:
        right = {of[0]: r for of, r in zip(layout.weights, known.right, strict=True)}
    sites = [(own.get(s.edge), right.get(n)) for n, s in enumerate(layout.graph.sites)]
    return Sketched(sites, known.left, error)


def _real(graph: CellGraph) -> np.dtype:
    """The dtype of state elements, at least float32."""
    kinds = [wide(graph.carry[k].dtype) for k in graph.hidden]
    return np.result_type(*kinds) if kinds else np.dtype(np.float32)


def _where(marks: Bool[Array, " B"], value: float, values: Array) -> Array:
    return jnp.where(marks.reshape(-1, *[1] * (values.ndim - 1)), value, values)
