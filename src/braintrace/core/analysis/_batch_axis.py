"""Where the samples lie in an array, and how an equation carries them on."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from .._compat import Params


@dataclasses.dataclass(frozen=True)
class BatchAxis:
    """Axis `dim` holds the samples: its elements are numbered (outer, sample, inner).

    `outer` and `inner` are 1 where the axis is the batch and nothing else. A reshape may merge it
    with others: (B, T, D) to (B T, D) has `inner` T.
    """

    dim: int
    size: int  # samples
    outer: int = 1
    inner: int = 1

    @property
    def is_plain(self) -> bool:
        """Whether the axis is the batch and nothing else."""
        return self.outer == self.inner == 1

    def at(self, dim: int) -> "BatchAxis":
        """The same along another axis."""
        return dataclasses.replace(self, dim=dim)

    def sample_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of one sample: the axis stays, of size 1 where it is the batch alone."""
        return (*shape[: self.dim], self.outer * self.inner, *shape[self.dim + 1 :])

    def full_shape(self, sample: tuple[int, ...]) -> tuple[int, ...]:
        """The inverse of `sample_shape`."""
        return (*sample[: self.dim], self.outer * self.size * self.inner, *sample[self.dim + 1 :])

    def apart(self, values: jax.Array, lead: int = 0) -> jax.Array:
        """The samples on an axis of their own, behind `lead` axes that stay in front."""
        shape = values.shape[lead:]
        if self.is_plain:
            moved = _moved(values, lead + self.dim, lead)
        else:
            first, last = shape[: self.dim], shape[self.dim + 1 :]
            split = (*values.shape[:lead], *first, self.outer, self.size, self.inner, *last)
            moved = _moved(values.reshape(split), lead + self.dim + 1, lead)
        return moved.reshape(*values.shape[:lead], self.size, *self.sample_shape(shape))

    def together(self, values: jax.Array, lead: int = 0) -> jax.Array:
        """The inverse of `apart`."""
        sample = values.shape[lead + 1 :]
        first, last = sample[: self.dim], sample[self.dim + 1 :]
        own = () if self.is_plain else (self.outer, self.inner)
        split = values.reshape(*values.shape[: lead + 1], *first, *own, *last)
        moved = _moved(split, lead, lead + self.dim + len(own) // 2)
        return moved.reshape(*values.shape[:lead], *self.full_shape(sample))

    def along(self, values: Shaped[Array, "*lead B"], ndim: int) -> jax.Array:
        """Values of each sample, shaped to broadcast against an array of `ndim` axes behind those
        that stay in front.
        """
        repeated = values
        if not self.is_plain:
            repeated = jnp.tile(jnp.repeat(values, self.inner, axis=-1), self.outer)
        own = [-1 if k == self.dim else 1 for k in range(ndim)]
        return repeated.reshape(*values.shape[:-1], *own)

    def of_one(self, values: np.ndarray) -> np.ndarray:
        """What is the same for each sample, given for one, broadcastable to all."""
        if self.is_plain:
            return values
        first, last = values.shape[: self.dim], values.shape[self.dim + 1 :]
        split = values.reshape(*first, self.outer, 1, self.inner, *last)
        repeated = np.repeat(split, self.size, axis=self.dim + 1)
        return repeated.reshape(self.full_shape(values.shape))


def _moved(values: jax.Array, source: int, target: int) -> jax.Array:
    return values if source == target else jnp.moveaxis(values, source, target)


Operands = Sequence[BatchAxis | None]


@dataclasses.dataclass(frozen=True)
class Moved:
    """Axes of the results; parameters of one sample's equation; axes along which shared operands
    are read sample by sample.
    """

    outs: tuple[BatchAxis | None, ...]
    params: Params
    aligned: Mapping[int, BatchAxis] = dataclasses.field(default_factory=dict)
