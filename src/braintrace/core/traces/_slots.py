"""Between the leaves of the carry and the slots of state groups."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis import CellGraph, Place, Slot


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
    """Values given for each position, read at each element of a site's y (zero where y does not act
    on the group).
    """
    positions = place.positions
    if (pieces := _pieces(positions, values.size)) is not None:
        blocks = [
            values.reshape(shape) if used else jnp.zeros(shape, values.dtype)
            for used, shape in pieces
        ]
        return blocks[0] if len(blocks) == 1 else jnp.concatenate(blocks, -1)
    read = values[np.maximum(positions, 0)]
    return read if (positions >= 0).all() else jnp.where(positions >= 0, read, 0)


def _pieces(positions: np.ndarray, count: int) -> list[tuple[bool, tuple[int, ...]]] | None:
    """Whether each piece of y along its last axis (a gate of a fused product) is all positions in
    order, or none of them.

    None when y is put together in another way.
    """
    rows = positions.size // positions.shape[-1] if positions.ndim and positions.size else 0
    if rows == 0 or count % rows:
        return None
    width = count // rows
    if positions.shape[-1] % width:
        return None
    shape = (*positions.shape[:-1], width)
    order = np.arange(count).reshape(shape)
    found = []
    for start in range(0, positions.shape[-1], width):
        piece = positions[..., start : start + width]
        if (piece == order).all():
            found.append((True, shape))
        elif (piece < 0).all():
            found.append((False, shape))
        else:
            return None
    return found
