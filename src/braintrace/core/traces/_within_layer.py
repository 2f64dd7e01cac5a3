"""The carrier that is exact within a layer: the whole influence of each weight on its layer's
state, sample by sample.

With h the n state elements of a layer in one sample (every carried value, so that recurrence is
complete),

    J <- (dh_K/dh_0) J + sum_t (dh_K/dy_t) x_t         (n, shape of W) for each sample and weight
    gradient of W = sum over samples of  (dL/dh_0) J, and the steps' own

The derivatives over K steps are found by n reverse passes, each for one element in all samples at
once: samples do not mix, so there is never a Jacobian across the batch. One product with J serves
all K steps. J is moved where it lies, and dh_K/dy_t is formed
for some elements at a time: a second time where all of it would not fit beside J. Memory O(B n
|W|), which is J; time O(B n^2 |W|) for K steps and O(B n (|W| + n^2)) for each, as products of
matrices.

Where no neuron of a layer moves another, W moves the neuron alone that it feeds, and the traces are
those of `PerParameter`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..analysis import CellGraph, Site, fed_layers, with_layers
from ..sites import sum_steps
from ..step import Values
from ._carrier import Cotangents, StepSignals, Sums, Traces, represented, trace_dtype
from ._per_parameter import OfSite, PerParameter
from ._sensitivity import (
    LayerSensitivity,
    Sensitivity,
    every_drive,
    layer_signal,
    layer_sizes,
    zero_perturbations,
)
from ._slots import nbytes, of_samples
from ._zeros import Zeros, of_part

Index = int | Array
State = TypeVar("State", bound=PyTree)
_Moved = tuple[Array, Array]  # traces, and what they contract to

EXACT = jax.lax.Precision.HIGHEST  # accelerators would round the operands

_IN_CACHE = 1 << 20  # bytes of a block that a processor multiplies at once
_ON_ACCELERATOR = 64 << 20
_NO_BLOCKS = 1 << 62
_FRACTION = 32  # of the traces, that derivatives beside them may take
_BLOCKS = 4  # that dh_K/dh_0 of some elements may take
_FEWEST_ROWS = 16  # samples times elements that are worth a pass


@dataclasses.dataclass(frozen=True)
class WithinLayer(PerParameter):
    """`dtype`: of the traces; by default that of y, at least float32.

    >>> from braintrace import rules
    >>> isinstance(rules.WithinLayer(), rules.TraceCarrier)
    True
    """

    def arrange(self, graph: CellGraph) -> CellGraph:
        return with_layers(graph)

    def useful_window(self, graph: CellGraph) -> int:
        """Traces of a whole layer of n elements are multiplied by n x n values once in a window,
        and driven by one value a step: 2n steps make the former the less.
        """
        sizes = layer_sizes(graph)
        coupled = [sizes[k] for s in graph.sites if not s.places for k in fed_layers(graph, s)]
        return max(super().useful_window(graph), 2 * max(coupled, default=0))

    def zeros(self, graph: CellGraph) -> PyTree:
        """For each site, its traces of coupled layers by number, and those of the others as
        `PerParameter` has them.
        """
        sizes = layer_sizes(graph)

        def zeros(site: Site) -> dict[int, Zeros]:
            layers = [] if site.places else fed_layers(graph, site)
            dtype = trace_dtype(site, self.dtype)
            return {layer: of_part(graph, site, dtype, sizes[layer]) for layer in layers}

        return list(zip(map(zeros, graph.sites), super().zeros(graph), strict=True))

    def moves_in_place(self, graph: CellGraph, site: Site) -> bool:
        return not site.places or super().moves_in_place(graph, site)

    def working_bytes(self, graph: CellGraph, steps: int) -> int:
        traces = jax.eval_shape(lambda: self.init(graph))
        rows = steps * nbytes(zero_perturbations(graph))
        most = 0
        for layer, size in enumerate(layer_sizes(graph)):
            held = nbytes([of_layers[layer] for of_layers, _ in traces if layer in of_layers])
            if held:
                several, _ = _passes(graph, size, rows, held)
                mixing = size * graph.samples * size * graph.carry[graph.hidden[0]].dtype.itemsize
                most = max(most, 2 * several * rows + mixing + 2 * min(block_bytes(), held))
        return most

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        own = super().advance(graph, _of_neurons(before), local)
        unread = [jnp.zeros(graph.carry[k].shape, graph.carry[k].dtype) for k in graph.hidden]
        return list(zip(self._through_layers(graph, before, local, unread)[0], own, strict=True))

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        own = super().reset(graph, _of_neurons(traces), marks)
        return [(layers, of) for (layers, _), of in zip(traces, own, strict=True)]

    def advance_and_contract(
        self, graph: CellGraph, before: Traces, local: Sensitivity, signals: Cotangents, sums: Sums
    ) -> tuple[Traces, Sums]:
        own, sums = super().advance_and_contract(graph, _of_neurons(before), local, signals, sums)
        entry, _ = signals
        after, found = self._through_layers(graph, before, local, entry)
        for n, gradient in found:
            weight = graph.sites[n].weight
            sums[weight] = sums[weight] + gradient.astype(sums[weight].dtype)
        return list(zip(after, own, strict=True)), sums

    def _through_layers(
        self, graph: CellGraph, before: Traces, local: Sensitivity, entry: Values
    ) -> tuple[list[dict[int, Array]], list[tuple[int, Array]]]:
        """The traces of coupled layers for each site, and sites with the gradient that `entry`
        stands for.
        """
        assert local.layers is not None
        after, gradients = [dict(traces) for traces, _ in before], []
        for layer, moved in enumerate(local.layers):
            old = {n: traces[layer] for n, traces in enumerate(after) if layer in traces}
            if not old:
                continue
            new, contracted = _through_layer(moved, old, local.data, entry)
            for n in old:
                after[n][layer] = new[n]
                gradients.append((n, of_samples(graph, graph.sites[n], contracted[n])))
        return after, gradients

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        found = []
        own = super().contract(graph, _of_neurons(traces), entry, now)
        for site, (of_layers, _), total in zip(graph.sites, traces, own, strict=True):
            for layer, trace in of_layers.items():
                each = jax.vmap(functools.partial(self._contract_layer, graph, site, layer))
                total = total + each(entry, trace).sum(0)
            found.append(total)
        return found

    def _contract_layer(
        self,
        graph: CellGraph,
        site: Site,
        layer: int,
        entry: Values,
        trace: Float[Array, "B n ..."],
    ) -> Array:
        parts = contracted_whole(trace, layer_signal(graph, layer, entry))
        return of_samples(graph, site, parts)


def contracted_whole(
    trace: Float[Array, "B n ..."], signal: Float[Array, "B n"]
) -> Float[Array, "B ..."]:
    """What a derivative with respect to the state of the traces stands for, for each sample."""
    a = signal.astype(trace.dtype)
    parts = jnp.einsum("bn,bn...->b...", a, trace, precision=EXACT)
    return met_rows(a[:, None], parts[:, None])[:, 0]


def _through_layer(
    moved: LayerSensitivity, traces: dict[int, Array], data: list[list[Array]], entry: Values
) -> tuple[dict[int, Array], dict[int, Array]]:
    """By site, the traces after the steps, and what `entry` contracts those before them to."""
    graph, signal = moved.graph, layer_signal(moved.graph, moved.layer, entry)
    size = moved.like.shape[1]
    several, count = _passes(graph, size, moved.row_bytes, nbytes(traces))
    rows, drive = _every_row(moved, count == 1)
    mixed = {n: mix(trace, rows, signal) for n, trace in traces.items()}

    def one_part(k: Index, traces: dict[int, Array]) -> dict[int, Array]:
        """The k-th part of their elements driven; with one part, `drive` has all of it."""
        start = jnp.minimum(k * several, size - several)
        elements = start + jnp.arange(several)
        drives = every_drive(graph, drive or moved.of(elements, elements >= k * several)[1])
        return {
            n: driven(graph, graph.sites[n], old, data[n], drives[n], start)
            for n, old in traces.items()
        }

    new = each_block(count, one_part, {n: trace for n, (trace, _) in mixed.items()})
    return new, {n: contracted for n, (_, contracted) in mixed.items()}


def _passes(graph: CellGraph, size: int, row_bytes: int, held: int) -> tuple[int, int]:
    """How many of `size` elements are driven at once, and how often, so that it takes little beside
    `held` bytes of traces.
    """
    several = max(
        max(held // _FRACTION, block_bytes()) // max(row_bytes, 1), _FEWEST_ROWS // graph.samples, 1
    )
    return _evenly(size, several)


def _evenly(size: int, most: int) -> tuple[int, int]:
    """(m, count): `size` elements in `count` parts of m, at most `most` (the last part may overlap
    the one before it).
    """
    count = -(-size // min(most, size))
    return -(-size // count), count


def _every_row(
    moved: LayerSensitivity, in_one_pass: bool
) -> tuple[Array, list[Array | None] | None]:
    """dh_K/dh_0, (samples, n, n), and the derivatives of y where one pass gives both."""
    like = moved.like
    samples, size = like.shape
    if in_one_pass:
        rows, drive = moved.of(jnp.arange(size))
        return jnp.swapaxes(rows, 0, 1), drive
    several, count = _evenly(size, max(1, _BLOCKS * block_bytes() // (size * nbytes(like))))

    def some(k: Index, rows: Array) -> Array:
        start = jnp.minimum(k * several, size - several)
        found = jnp.swapaxes(moved.of(start + jnp.arange(several))[0], 0, 1)
        return jax.lax.dynamic_update_slice_in_dim(rows, found, start, 1)

    return each_block(count, some, jnp.zeros((samples, size, size), like.dtype)), None


def driven(
    graph: CellGraph,
    site: Site,
    trace: Float[Array, "B n ..."],
    data: list[Array],
    drive: Float[Array, "m K ..."],
    start: Index,
) -> Float[Array, "B n ..."]:
    """`trace`, its elements from `start` on moved by `drive`, the derivatives of these m elements
    with respect to y; of a y that the samples share, (m, B, K, ...).
    """
    drive = drive.astype(trace.dtype)
    y_axis = graph.y_axis(site)
    if graph.samples > 1 and y_axis is None:
        each = drive.sum(2) if not site.is_operation else _shared_gradients(site, data, drive)
        return _add(trace, jnp.moveaxis(each, 0, 1), 0, start)
    if not site.is_operation:
        total = sum_steps(jnp.moveaxis(drive, 1, 0))
        added = total[:, None] if y_axis is None else y_axis.apart(total, 1)
        return _add(trace, jnp.moveaxis(added, 1, 0), 0, start)
    x = jax.vmap(lambda *data: represented(site, list(data), drive.dtype))(*data)
    if y_axis is None:
        added = jax.vmap(lambda c: site.rule.weight_gradient_sum(x, c))(drive)
        return _add(trace, added[None], 0, start)
    x_axis = graph.data_axis(site)
    bytes_of_one = drive.shape[0] * trace[0, 0].size * trace.dtype.itemsize
    several = samples_at_once(graph.samples, bytes_of_one)
    # both laid out outside the loop as its products read them: samples first; time last, or before
    # the elements
    x = jnp.moveaxis(x, 0, -1) if x_axis is None else jnp.moveaxis(x_axis.apart(x, 1), 0, -1)
    drive = jnp.moveaxis(y_axis.apart(drive, 2), 0, 2)
    drive = jnp.moveaxis(drive, 1, 0)

    def gradients(x: Array, drive: Array) -> Array:
        """Of one sample, summed over the steps, for each of m cotangents of y."""
        data = jnp.moveaxis(x, -1, 0)
        return jax.vmap(lambda c: site.rule.weight_gradient_sum(data, c), in_axes=1)(drive)

    def some(k: Index, trace: Array) -> Array:
        here = x if x_axis is None else jax.lax.dynamic_slice_in_dim(x, k * several, several)
        driven = jax.lax.dynamic_slice_in_dim(drive, k * several, several)
        added = jax.vmap(gradients, in_axes=(None if x_axis is None else 0, 0))(here, driven)
        return _add(trace, added, k * several, start)

    return each_block(graph.samples // several, some, trace)


def _shared_gradients(
    site: Site, data: list[Array], drive: Float[Array, "m B K ..."]
) -> Float[Array, "m B ..."]:
    """Of an operation that is one for all samples, for each of m cotangents of each sample."""
    x = jax.vmap(lambda *data: represented(site, list(data), drive.dtype))(*data)
    return jax.vmap(jax.vmap(lambda c: site.rule.weight_gradient_sum(x, c)))(drive)


def _add(
    trace: Float[Array, "B n ..."], added: Float[Array, "B m ..."], sample: Index, start: Index
) -> Array:
    """`trace` with `added` put on top of its part from that sample and that element on."""
    at = (sample, start, *[0] * (trace.ndim - 2))
    return jax.lax.dynamic_update_slice(
        trace, jax.lax.dynamic_slice(trace, at, added.shape) + added, at
    )


def _of_neurons(traces: Traces) -> list[OfSite]:
    """The part that `PerParameter` has."""
    return [of_site for _, of_site in traces]


# Blocks: beside traces that are moved where they lie there is never more than a block. A trace has
# the shape (samples or 1, n, *shape of W's part); its samples are independent, and so are the
# elements of W.


def block_bytes() -> int:
    """The size of a block on the default device. Where XLA divides arrays along the axes of a mesh
    there is one block: to take a part of what is divided, by a number that is not known to it, it
    would gather the whole.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if any(mesh.shape[name] > 1 for name in (*mesh.auto_axes, *mesh.explicit_axes)):
        return _NO_BLOCKS
    return _IN_CACHE if jax.default_backend() == "cpu" else _ON_ACCELERATOR


def samples_at_once(samples: int, each: int) -> int:
    """How many samples of `each` bytes are a block: a divisor of their number."""
    most = max(1, block_bytes() // max(each, 1))
    return max(k for k in range(1, samples + 1) if samples % k == 0 and k <= most)


@jax.custom_batching.custom_vmap
def mix(
    trace: Float[Array, "B n ..."], rows: Float[Array, "B n n"], signal: Float[Array, "B n"]
) -> tuple[Float[Array, "B n ..."], Float[Array, "B ..."]]:
    """(`rows` times the trace, `signal` times the trace before), sample by sample."""
    samples, size, *part = trace.shape
    left = jnp.concatenate([rows, signal[:, None]], 1).astype(trace.dtype)
    if block_bytes() == _NO_BLOCKS:  # nor axes merged that may be divided
        products = jnp.einsum("bmn,bn...->bm...", left, trace, precision=EXACT)
        new = met_rows(left, products)
        return new[:, :size], new[:, size]
    flat = trace.reshape(samples, size, -1)
    width, each = flat.shape[2], size * trace.dtype.itemsize
    several = samples_at_once(samples, each * width)
    panel = min(width, max(1, block_bytes() // (each * several)))

    def move(sample: Index, start: Index, width: int, state: _Moved) -> _Moved:
        flat, contracted = state
        old = jax.lax.dynamic_slice(flat, (sample, 0, start), (several, size, width))
        factors = jax.lax.dynamic_slice_in_dim(left, sample, several)
        new = met_rows(factors, jnp.matmul(factors, old, precision=EXACT))
        flat = jax.lax.dynamic_update_slice(flat, new[:, :size], (sample, 0, start))
        return flat, jax.lax.dynamic_update_slice(contracted, new[:, size], (sample, start))

    state, count = (flat, jnp.zeros((samples, width), trace.dtype)), width // panel
    blocks = samples // several * count
    state = each_block(
        blocks, lambda k, s: move(k // count * several, k % count * panel, panel, s), state
    )
    if last := width % panel:
        state = each_block(
            samples // several, lambda k, s: move(k * several, width - last, last, s), state
        )
    return state[0].reshape(trace.shape), state[1].reshape(samples, *part)


@mix.def_vmap
def _mix_mapped(size: int, mapped: list[bool], *operands: Array) -> tuple[_Moved, PyTree[bool]]:
    """What is mapped counts as samples, so that a block stays a block."""
    pairs = zip(operands, mapped, strict=True)
    whole = [v if m else jnp.broadcast_to(v, (size, *v.shape)) for v, m in pairs]
    found = mix(*(v.reshape(-1, *v.shape[2:]) for v in whole))
    return jax.tree.map(lambda v: v.reshape(size, -1, *v.shape[1:]), found), (True, True)


def met_rows(factors: Float[Array, "B m n"], products: Float[Array, "B m ..."]) -> Array:
    """Products of traces with rows of factors: of zeros alone it is zero, whatever the traces."""
    none = (factors == 0).all(-1).reshape(factors.shape[:2] + (1,) * (products.ndim - 2))
    return jnp.where(none & ~jnp.isfinite(products), 0, products)


def each_block(count: int, body: Callable[[Index, State], State], state: State) -> State:
    """`body(k, state)` for k = 0 .. count - 1; without a loop when there is one."""
    return body(0, state) if count == 1 else jax.lax.fori_loop(0, count, body, state)
