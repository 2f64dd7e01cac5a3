"""Between the leaves of the carry and the slots of state groups."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import CellGraph, Place, Slot


def read_slot(graph: CellGraph, hidden: Sequence[Any], slot: Slot) -> jax.Array:
    """The slot's values, one for each position, out of arrays shaped as the hidden leaves."""
    flat = hidden[graph.hidden.index(slot.leaf)].reshape(-1)
    if slot.whole:
        return flat
    return jnp.where(slot.elements >= 0, flat[np.maximum(slot.elements, 0)], 0)


def one_slot(graph: CellGraph, hidden: Sequence[Any], slot: Slot) -> list[jax.Array]:
    """Arrays shaped as the hidden leaves: ones on the slot, zeros elsewhere."""
    leaves = [np.zeros(h.shape, h.dtype) for h in hidden]
    leaf = leaves[graph.hidden.index(slot.leaf)].reshape(-1)
    leaf[slot.elements[slot.elements >= 0]] = 1
    return [jnp.asarray(v) for v in leaves]


def at_place(values: jax.Array, place: Place) -> jax.Array:
    """Values given for each position, read at each element of a site's y (zero where y does not act on the group)."""
    positions = place.positions
    if positions.size == values.size and (positions.reshape(-1) == np.arange(values.size)).all():
        return values.reshape(positions.shape)
    read = values[np.maximum(positions, 0)]
    return read if (positions >= 0).all() else jnp.where(positions >= 0, read, 0)
