"""What a trace is before the first step, array by array, and along which axes it may be divided."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, PyTree

from ..analysis import (
    Axes,
    CellGraph,
    Site,
    axes_of_carry,
    axes_of_entries,
    axes_of_part,
    axes_of_y,
)
from ._slots import part_shape

UNDIVIDED = Axes()


@dataclasses.dataclass(frozen=True, eq=False)
class Zeros:
    """An array of zeros, or of other `values` before the first step. `axes` says along which axes
    it may be divided between devices: by samples, and by neurons.

    >>> from braintrace import rules
    >>> rules.Zeros((4, 3), "float32", rules.Axes(samples=0)).made().shape
    (4, 3)
    """

    shape: tuple[int, ...]
    dtype: DTypeLike
    axes: Axes = UNDIVIDED
    values: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def made(self) -> Array:
        """The array."""
        if self.values is not None:
            return jnp.array(self.values, self.dtype)
        return jnp.zeros(self.shape, self.dtype)


def made(tree: PyTree) -> PyTree:
    """The arrays of a tree of `Zeros`."""
    return jax.tree.map(Zeros.made, tree)


def zeros(
    shape: tuple[int, ...],
    dtype: DTypeLike,
    axes: Axes = UNDIVIDED,
    values: np.ndarray | None = None,
) -> Any:
    """`Zeros`, which stand for an array in trees whose leaves are typed as arrays."""
    return Zeros(shape, dtype, axes, values)


def of_y(graph: CellGraph, site: Site, dtype: DTypeLike) -> Any:
    """Shaped as a site's y."""
    return zeros(site.y.shape, dtype, axes_of_y(graph, site))


def of_entries(graph: CellGraph, site: Site, dtype: DTypeLike, *lead: int) -> Any:
    """The trace of a state slot, behind further axes."""
    axes = axes_of_entries(graph, site).behind(len(lead))
    return zeros((*lead, *site.trace_shape), dtype, axes)


def of_part(graph: CellGraph, site: Site, dtype: DTypeLike, *lead: int) -> Any:
    """(samples, further axes, the part of a site's weight that one sample meets)."""
    shape = (graph.samples, *lead, *part_shape(graph, site))
    return zeros(shape, dtype, axes_of_part(graph, site, 1 + len(lead)))


def of_samples_alone(graph: CellGraph, dtype: DTypeLike, *shape: int) -> Any:
    """(samples, shape), of no neuron in particular."""
    return zeros((graph.samples, *shape), dtype, Axes(samples=0))


def zeros_of_extra(graph: CellGraph) -> list[Any]:
    """The leaves that the algorithm adds to the carry."""
    axes = axes_of_carry(graph)[len(graph.carry) - len(graph.extra) :]
    pairs = zip(graph.extra, axes, strict=True)
    return [Zeros(e.initial.shape, e.initial.dtype, of, e.initial) for e, of in pairs]
