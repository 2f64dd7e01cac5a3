"""The state of a whole layer, sample by sample, and how it moves."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from ..analysis import CellGraph, fed_layers
from ..step import Values
from ._slots import nbytes

# cotangents of the hidden leaves, to those of the leaves before and of each perturbation
Pull = Callable[[list[Array]], tuple[list[Array], list[Array | None]]]


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """How the state of a layer after K steps, h_K (n elements in each sample), depends on that
    before them and on each y.

    Row j, of one element in all samples at once, is a reverse pass. Rows are asked for, some at a
    time: together they may be larger than the traces. `pull` takes cotangents of the hidden leaves,
    which are like `end`, to those before the steps and of the y.
    """

    graph: CellGraph
    layer: int
    end: Values
    pull: Pull

    @property
    def like(self) -> jax.ShapeDtypeStruct:
        """(samples, n) of the state's dtype."""
        return jax.eval_shape(lambda *h: flat_layer(self.graph, self.layer, h), *self.end)

    @property
    def row_bytes(self) -> int:
        """Bytes of the derivatives of one element with respect to every y."""
        return nbytes(jax.eval_shape(self.pull, list(self.end))[1])

    def of(
        self, elements: Int[Array, " m"], wanted: bool | Bool[Array, " m"] = True
    ) -> tuple[Float[Array, "m B n"], list[Array | None]]:
        """dh_K[j]/dh_0 and for each site dh_K[j]/dy (m, K, *shape of y), of m elements j; 0 where
        not `wanted`.
        """
        flat, like = lambda *hidden: flat_layer(self.graph, self.layer, hidden), self.like
        numbers = jnp.arange(like.shape[1])
        spread = jax.linear_transpose(flat, *self.end)

        def row(element: Int[Array, ""], wanted: Bool[Array, ""]) -> PyTree:
            one = ((numbers == element) & wanted).astype(like.dtype)
            before, drive = self.pull(list(spread(jnp.broadcast_to(one, like.shape))))
            return flat(*before), drive

        return jax.vmap(row)(elements, jnp.broadcast_to(wanted, elements.shape))


def layer_sizes(graph: CellGraph) -> list[int]:
    """State elements of each layer in one sample."""
    assert graph.layers is not None
    return [sum(map(graph.sample_size, leaves)) for leaves in graph.layers.leaves]


def largest_coupled(graph: CellGraph) -> int:
    """State elements in one sample of the largest layer whose neurons move each other and that a
    site feeds; 0 without one.
    """
    sizes = layer_sizes(graph)
    return max(
        (sizes[k] for site in graph.sites if not site.places for k in fed_layers(graph, site)),
        default=0,
    )


def flat_layer(graph: CellGraph, layer: int, hidden: Values) -> Float[Array, "B n"]:
    """A layer's leaves, out of arrays shaped as the hidden leaves."""
    assert graph.layers is not None
    leaves = [graph.apart(k, hidden[graph.hidden.index(k)]) for k in graph.layers.leaves[layer]]
    return jnp.concatenate(leaves, axis=1)
