"""How the hidden state at the end of some steps depends, position by position, on the state before
them and on each y.

For steps 1..K of the local evaluation and a slot s, one reverse pass with ones on that slot gives,
exactly,

    rows[q]  = (D_K ... D_1)[s, q]                for every position
    drive_t  = (D_K ... D_{t+1} f_t)[s]           for every site, shaped as its y, t = 1..K

because each old state and each element of y influences one position only. With K = 1 these are D
and f.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num, PyTree

from ..analysis import CellGraph, Place
from ..step import Perturbations, Step, Values, calls_back, hidden_part, step, with_hidden
from ._slots import at_place, cleared, nbytes, one_slot, operand_axes, timed, untimed, where_acting

Carried = TypeVar("Carried")
# cotangents of the hidden leaves, to those of the leaves before and of each perturbation
Pull = Callable[[list[Array]], tuple[list[Array], list[Array | None]]]
# (K, B): the samples of each step on which nothing depends that is read after the last step
Unread = Bool[Array, "K B"] | None
# Of one place, of which None is zero: for each pair of slots what carries one over into the other,
# shaped as y, and for each slot its derivative with respect to y at each step, (K, *shape of y).
Moves = tuple[tuple[tuple[Array | None, ...], ...], tuple[Array | None, ...]]


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """How the state of a layer after K steps, h_K (n elements in each sample), depends on that
    before them and on each y.

    Row j, of one element in all samples at once, is a reverse pass. Rows are asked for, some at a
    time: together they may be larger than the traces. `pull` takes cotangents of the hidden leaves,
    which are like `end`, to those before the steps and of the y.

    Where something that all samples share moves them (`shares`), each sample takes a pass of its
    own.
    """

    graph: CellGraph
    layer: int
    end: Values
    pull: Pull
    unread: Unread = None

    @property
    def like(self) -> jax.ShapeDtypeStruct:
        """(samples, n) of the state's dtype."""
        return jax.eval_shape(lambda *h: flat_layer(self.graph, self.layer, h), *self.end)

    @property
    def row_bytes(self) -> int:
        """Bytes of the derivatives of one element with respect to every y."""
        passes = self.graph.samples if self.shares else 1
        return passes * nbytes(jax.eval_shape(self.pull, list(self.end))[1])

    @functools.cached_property
    def shares(self) -> bool:
        """Whether samples share a state leaf, or a y of a parameter's."""
        return shares_state(self.graph) or any(shared_sites(self.graph))

    def of(
        self, elements: Int[Array, " m"], wanted: bool | Bool[Array, " m"] = True
    ) -> tuple[Float[Array, "m B n"], list[Array | None]]:
        """dh_K[j]/dh_0 and for each site dh_K[j]/dy (m, K, *shape of y), of m elements j; 0 where
        not `wanted`. With a y that the samples share, theirs are apart: (m, B, K, *shape of y).
        """
        numbers = jnp.arange(self.like.shape[1])

        def row(element: Int[Array, ""], wanted: Bool[Array, ""]) -> PyTree:
            return self.pulled((numbers == element) & wanted)

        return jax.vmap(row)(elements, jnp.broadcast_to(wanted, elements.shape))

    def pulled(
        self, cotangent: Num[Array, "*#B n"] | Bool[Array, "*#B n"]
    ) -> tuple[Float[Array, "B n"], list[Array | None]]:
        """Cotangents of h_K, of one sample or of each, to those of h_0 and of each y (of a y that
        the samples share with theirs apart: (B, K, *shape of y)).
        """
        flat, like = lambda *hidden: flat_layer(self.graph, self.layer, hidden), self.like
        whole = jnp.broadcast_to(cotangent.astype(like.dtype), like.shape)
        spread = jax.linear_transpose(flat, *self.end)
        if not self.shares:
            before, drives = self.pull(list(spread(whole)))
            return flat(*before), drives
        samples = jnp.arange(like.shape[0])

        def of_sample(sample: Int[Array, ""]) -> PyTree:
            own = jnp.where((samples == sample)[:, None], whole, 0)
            before, drives = self.pull(list(spread(own)))
            return flat(*before)[sample], drives

        rows, drives = jax.vmap(of_sample)(samples)
        kept = zip(drives, shared_sites(self.graph), strict=True)
        return rows, [d if d is None or shared else d.sum(0) for d, shared in kept]

    def pushed(self, tangent: Float[Array, "B n"]) -> Float[Array, "B n"]:
        """dh_K/dh_0 times a tangent of h_0: the transpose of `pulled`, at its cost.

        Derivatives that only reverse mode has (`jax.custom_vjp`) are those of `pull` here, too.
        """
        push = jax.linear_transpose(lambda cotangent: self.pulled(cotangent)[0], self.like)
        (found,) = push(tangent.astype(self.like.dtype))
        if self.unread is None or self.unread.shape[1] != found.shape[0]:
            return found  # a derivative that is not finite meets nothing else
        return jnp.where(self.unread.any(0)[:, None], 0, found)


def layer_sizes(graph: CellGraph) -> list[int]:
    """State elements of each layer in one sample."""
    assert graph.layers is not None
    return [sum(map(graph.sample_size, leaves)) for leaves in graph.layers.leaves]


def shares_state(graph: CellGraph) -> bool:
    """Whether samples share a leaf of the hidden state."""
    return graph.samples > 1 and any(graph.batch_axis(graph.carry[k]) is None for k in graph.hidden)


def shared_sites(graph: CellGraph) -> list[bool]:
    """Which sites have a y that the samples share: a parameter that acts on all of them at once."""
    return [graph.samples > 1 and graph.y_axis(site) is None for site in graph.sites]


def flat_layer(graph: CellGraph, layer: int, hidden: Values) -> Float[Array, "B n"]:
    """A layer's leaves, out of arrays shaped as the hidden leaves. What the samples share is in
    each of them.
    """
    assert graph.layers is not None
    leaves = [graph.apart(k, hidden[graph.hidden.index(k)]) for k in graph.layers.leaves[layer]]
    samples = [jnp.broadcast_to(v, (graph.samples, v.shape[1])) for v in leaves]
    return jnp.concatenate(samples, axis=1)


def layer_signal(graph: CellGraph, layer: int, signal: Values) -> Float[Array, "B n"]:
    """`flat_layer` of a derivative with respect to the hidden leaves: of what the samples share,
    each has its part.
    """
    axes = [graph.batch_axis(graph.carry[k]) for k in graph.hidden]
    pairs = zip(signal, axes, strict=True)
    parts = [v if axis is not None else v / graph.samples for v, axis in pairs]
    return flat_layer(graph, layer, parts)


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """`slots`, by group and slot, of those that a site needs: rows, shaped as the hidden leaves,
    and drives, (K, *shape of y) for each site. `data[n]`: operands of site n, time first. The end
    carry.

    >>> from braintrace import rules
    >>> callable(rules.Sensitivity.at)
    True
    """

    slots: dict[tuple[int, int], tuple[list[Array], list[Array]]]
    data: list[list[Array]]
    carry: list[Array]
    layers: list[LayerSensitivity] | None = None  # for algorithms that are exact within a layer
    positions: "Sensitivity | None" = None  # of the graph by position, where there is one

    def at(self, graph: CellGraph, n: int, place: Place) -> Moves:
        """What the steps do to the traces of site n at a place."""
        moved = [self.slots[place.group, s] for s in place.slots]
        steps = moved[0][1][n].shape[0] if moved else 1
        # which slots reach which within the steps
        coupling = graph.groups[place.group].coupling
        reached = coupling
        for _ in range(min(steps, len(coupling)) - 1):
            reached = reached | (reached @ coupling)
        rows = tuple(
            tuple(at_place(graph, of, place, q) if reached[s, q] else None for q in place.slots)
            for s, (of, _) in zip(place.slots, moved, strict=True)
        )
        # at a single step y may not move the slot yet
        drives = tuple(
            where_acting(place, drive[n]) if s in place.direct or steps > 1 else None
            for s, (_, drive) in zip(place.slots, moved, strict=True)
        )
        return rows, drives


def zero_perturbations(graph: CellGraph, steps: int | None = None) -> list[Array | None]:
    """A zero for each site's y (with `steps`, time first); None where another site's serves
    (`every_drive`).
    """
    lead = () if steps is None else (steps,)
    numbered = zip(graph.first_of_sum, graph.sites, strict=True)
    return [
        jnp.zeros((*lead, *s.y.shape), s.y.dtype) if first == n else None
        for n, (first, s) in enumerate(numbered)
    ]


def every_drive(graph: CellGraph, drives: Perturbations) -> list[Array]:
    """The derivatives with respect to the perturbations, for each site."""
    return [cast("Array", drives[first]) for first in graph.first_of_sum]


def cleared_drives(
    graph: CellGraph, drives: Perturbations, marks: Bool[Array, " *K B"]
) -> list[Array | None]:
    """Derivatives with respect to each y, zero for the samples that are marked."""
    return [
        None if drive is None else cleared(graph.y_axis(site), drive, marks)
        for site, drive in zip(graph.sites, drives, strict=True)
    ]


def cleared_data(
    graph: CellGraph, data: Sequence[Values], marks: Bool[Array, " *K B"]
) -> list[list[Array]]:
    """The data of each site, zero for the samples that are marked."""
    return [
        [cleared(*of, marks) for of in zip(operand_axes(graph, site), values, strict=True)]
        for site, values in zip(graph.sites, data, strict=True)
    ]


def sensitivity_bytes(graph: CellGraph) -> int:
    """Bytes of D and f for one step: an entry for each pair of coupled slots, and one for each slot
    that a site feeds.
    """
    coupled = sum(
        int(g.coupling.sum()) * g.positions * graph.carry[g.slots[0].leaf].dtype.itemsize
        for g in graph.groups
        if g.slots
    )
    firsts = [graph.sites[n] for n in sorted(set(graph.first_of_sum))]
    return coupled + sum(
        s.y.size * s.y.dtype.itemsize * sum(len(p.slots) for p in s.places) for s in firsts
    )


def sensitivity(
    graph: CellGraph,
    ready: Values,
    carry: Values,
    xs: Sequence[Array | None],
    evaluate: Callable[..., Step] = step,
    unread: Unread = None,
) -> Sensitivity:
    """Sensitivities over the steps of `xs` (time first)."""

    def end(hidden: list[Array], perturbations: list[Array | None]) -> tuple[list[Array], PyTree]:
        def advance(carry: list[Array], now: tuple[list[Array], Perturbations]) -> PyTree:
            result = evaluate(graph, ready, carry, *now)
            return result.local, result.data

        last, data = scan(advance, with_hidden(graph, carry, hidden), (xs, perturbations))
        return hidden_part(graph, last), (data, last)

    start = hidden_part(graph, carry), zero_perturbations(graph, jax.tree.leaves(xs)[0].shape[0])
    out, pull, (data, last) = jax.vjp(end, *start, has_aux=True)
    found = pulled_back(graph, out, pull, data, last, unread)
    if graph.positions is None:
        return found
    by_position = sensitivity(graph.positions, ready, carry, xs, evaluate, unread)
    return dataclasses.replace(found, positions=by_position)


def pulled_back(
    graph: CellGraph,
    out: Values,
    pull: Pull,
    data: list[list[Array]],
    last: list[Array],
    unread: Unread = None,
) -> Sensitivity:
    """The sensitivities of the hidden leaves `out` of the local evaluation, by reverse passes
    through steps that are evaluated already.

    `pull` takes cotangents of `out` to (those of the hidden state before the steps, those of the
    perturbations).
    """
    if unread is not None:
        pull, data = _that_reads(graph, pull, unread), cleared_data(graph, data, unread)
    layers = graph.layers and [
        LayerSensitivity(graph, k, out, pull, unread) for k in range(len(graph.layers.layers))
    ]
    needed = sorted({(p.group, s) for site in graph.sites for p in site.places for s in p.slots})
    ends = [one_slot(graph, out, graph.groups[g].slots[s]) for g, s in needed]
    # a call back to Python may not know how to be mapped
    if len(ends) < 2 or any(map(calls_back, graph.step)):
        found = [pull(end) for end in ends]
    else:  # one pass for all slots: what it recomputes is recomputed once
        together = jax.vmap(pull)(jax.tree.map(lambda *v: jnp.stack(v), *ends))
        at = lambda k: jax.tree.map(lambda v: jax.lax.index_in_dim(v, k, keepdims=False), together)
        found = [at(k) for k in range(len(ends))]
    moved = [(rows, every_drive(graph, drives)) for rows, drives in found]
    return Sensitivity(dict(zip(needed, moved, strict=True)), data, last, layers)


def _that_reads(graph: CellGraph, pull: Pull, unread: Bool[Array, "K B"]) -> Pull:
    """`pull` without what the end does not depend on: a derivative that is zero there by a reset
    further on may have met one that is not finite.
    """
    gone = unread.any(0)

    def read(end: list[Array]) -> tuple[list[Array], list[Array | None]]:
        rows, drives = pull(end)
        axes = map(graph.leaf_axis, graph.hidden)
        kept = [cleared(axis, row, gone) for axis, row in zip(axes, rows, strict=True)]
        return kept, cleared_drives(graph, drives, unread)

    return read


def scan(
    body: Callable[[Carried, PyTree], tuple[Carried, PyTree]], carry: Carried, steps: PyTree
) -> tuple[Carried, PyTree]:
    """`lax.scan`, without a loop when there is one step."""
    if jax.tree.leaves(steps)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, steps)
    carry, result = body(carry, untimed(steps))
    return carry, timed(result)
