"""Between the leaves of the carry and the slots of state groups; sizes."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, PyTree, Shaped

from ..analysis import BatchAxis, CellGraph, Place, Site, Slot, as_array
from ..step import Values


def cleared(
    axis: BatchAxis | None, values: Shaped[Array, "..."], marks: Bool[Array, " *K B"]
) -> Array:
    """`values` with zeros for the samples that are marked. With marks of steps, both are time
    first. It is a selection: what is cleared may be NaN.

    Without an axis there is one sample, and everything is its own; what several samples share stays
    as it is.
    """
    if axis is None and marks.shape[-1] > 1:
        return values
    ndim = values.ndim - marks.ndim + 1
    if axis is None:
        return jnp.where(marks.reshape(*marks.shape[:-1], *(1,) * ndim), 0, values)
    return jnp.where(axis.along(marks, ndim), 0, values)


def timed(tree: PyTree) -> PyTree:
    """The arrays of one step, with an axis of time in front."""
    return jax.tree.map(lambda v: jax.lax.expand_dims(v, (0,)), tree)


def untimed(tree: PyTree) -> PyTree:
    """The inverse of `timed`."""
    return jax.tree.map(lambda v: jax.lax.squeeze(v, (0,)), tree)


def operand_axes(graph: CellGraph, site: Site) -> list[BatchAxis | None]:
    """Where the samples lie in each of a site's data."""
    if graph.batch is None:
        return [None for _ in site.data]
    return [graph.batch.operand(site.equation, k) for k in site.rule.data]


def one_slot(graph: CellGraph, hidden: Values, slot: Slot) -> list[Array]:
    """Arrays shaped as the hidden leaves: ones on the slot of every sample, zeros elsewhere."""
    number, size = graph.hidden.index(slot.leaf), graph.sample_size(slot.leaf)
    leaves = [jnp.zeros(h.shape, h.dtype) for h in hidden]
    leaf = hidden[number]
    if slot.in_order:
        leaves[number] = jnp.ones(leaf.shape, leaf.dtype)
    else:
        ones = np.isin(np.arange(size), as_array(slot.elements)).astype(leaf.dtype)
        every = jnp.broadcast_to(ones, (leaf.size // size, size))
        leaves[number] = graph.together(slot.leaf, every)
    return leaves


def at_place(graph: CellGraph, hidden: Values, place: Place, slot: int) -> Float[Array, "*y"]:
    """What `hidden`, arrays shaped as the hidden leaves, hold of a slot of the place's group, read
    at each element of a site's y (zero where y does not act on the group).
    """
    of = graph.groups[place.group].slots[slot]
    values = graph.apart(of.leaf, hidden[graph.hidden.index(of.leaf)])
    if not of.in_order:
        elements = as_array(of.elements)
        values = jnp.where(elements >= 0, values[:, np.maximum(elements, 0)], 0)
    read = _of_samples(values, place)
    return read[0] if place.axis is None else place.axis.together(read)


def signals_at(graph: CellGraph, entry: Values, site: Site) -> list[list[Float[Array, "*y"]]]:
    """`at_place` of each place and slot that the site acts on."""
    return [[at_place(graph, entry, place, s) for s in place.slots] for place in site.places]


def where_acting(
    place: Place, values: Inexact[Array, "*steps_and_y"]
) -> Inexact[Array, "*steps_and_y"]:
    """Values shaped as y, zero where y does not act on the group."""
    return values if place.acts is None else jnp.where(place.acts, values, 0)


def _of_samples(values: Float[Array, "B N"], place: Place) -> Float[Array, "B ..."]:
    samples, count = values.shape
    positions = place.positions
    if positions is None:
        return values.reshape(samples, *place.shape)
    if gates := _gates(positions, count):
        whole = values.reshape(samples, *gates[0].shape)
        pieces = [whole if (gate >= 0).any() else jnp.zeros_like(whole) for gate in gates]
        return jnp.concatenate(pieces, -1)
    read = values[:, np.maximum(positions, 0)]
    return read if (positions >= 0).all() else jnp.where(positions >= 0, read, 0)


def _gates(positions: np.ndarray, count: int) -> list[np.ndarray]:
    """The pieces of y along its last axis (the gates of a fused product) where each is all
    positions in order, or none of them; else nothing.
    """
    rows = math.prod(positions.shape[:-1])
    if not positions.ndim or not positions.size or count % rows:
        return []
    number, rest = divmod(positions.shape[-1], count // rows)
    if rest:
        return []
    pieces = np.split(positions, number, axis=-1)
    order = np.arange(count).reshape(pieces[0].shape)
    fit = all((piece == order).all() or (piece < 0).all() for piece in pieces)
    return pieces if fit else []


def part_shape(graph: CellGraph, site: Site) -> tuple[int, ...]:
    """The shape of the part of a site's weight that one sample meets: mostly all of it."""
    axis, shape = graph.weight_axis(site), site.weight.shape
    return shape if axis is None else axis.sample_shape(shape)


def of_samples(graph: CellGraph, site: Site, parts: Inexact[Array, "B ..."]) -> Array:
    """The gradient of a weight, out of that of the part of it that each sample meets."""
    axis = graph.weight_axis(site)
    return parts.sum(0) if axis is None else axis.together(parts)


def nbytes(tree: PyTree) -> int:
    """Bytes of the arrays in a tree, or of what has their shape and dtype."""
    return sum(math.prod(v.shape) * v.dtype.itemsize for v in jax.tree.leaves(tree))
