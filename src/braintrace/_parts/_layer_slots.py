"""The state of a whole layer, lane by lane, and how it moves."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._analysis import CellGraph


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """Over K steps: `rows` (n, lanes, n) = dh_K[j]/dh_0[k]; `drive[site]`: (n, K, *shape of y)."""

    rows: jax.Array
    drive: list[Any]


def layer_one_hots(graph: CellGraph, layer: int, hidden: Sequence[Any]) -> list[np.ndarray]:
    """For each of the n elements of a layer, ones on it in every lane: arrays (n, *shape of leaf) for all hidden leaves."""
    assert graph.layers is not None
    lanes, (total,) = graph.lanes or 1, (layer_sizes(graph)[layer],)
    out = [np.zeros((total, *h.shape), h.dtype) for h in hidden]
    start = 0
    for k in graph.layers.leaves[layer]:
        leaf = out[graph.hidden.index(k)].reshape(total, lanes, -1)
        for element in range(leaf.shape[2]):
            leaf[start + element, :, element] = 1
        start += leaf.shape[2]
    return out


def layer_sizes(graph: CellGraph) -> list[int]:
    """State elements of each layer in one lane."""
    assert graph.layers is not None
    lanes = graph.lanes or 1
    return [sum(graph.carry[k].size for k in leaves) // lanes for leaves in graph.layers.leaves]


def drive_bytes(graph: CellGraph) -> int:
    """Bytes of `LayerSensitivity.drive` for one step, over all layers."""
    return sum(layer_sizes(graph)) * sum(s.y.size * s.y.dtype.itemsize for s in graph.sites)


def flat_layer(graph: CellGraph, layer: int, hidden: Sequence[Any]) -> jax.Array:
    """(lanes, n): a layer's leaves, out of arrays shaped as the hidden leaves."""
    assert graph.layers is not None
    lanes = graph.lanes or 1
    leaves = [hidden[graph.hidden.index(k)] for k in graph.layers.leaves[layer]]
    return jnp.concatenate([v.reshape(lanes, -1) for v in leaves], axis=1)
