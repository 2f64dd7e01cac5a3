"""Filters over time: the functions that trace helpers and algorithms share."""

import numpy as np
from jaxtyping import Array, DTypeLike, Float, Inexact

from .._precision import wide, widened


def kappa_step(value: Array, x: Array | float, kappa: float) -> Array:
    """`v <- (1 - kappa) x + kappa v`: a low-pass filter of unit gain. At least float32."""
    return (1 - kappa) * widened(x) + kappa * widened(value)


def leaky_step(value: Array, x: Array | float, leak: float) -> Array:
    """`v <- leak v + x`: a leaky sum. At least float32."""
    return leak * widened(value) + x


def counting(dtype: DTypeLike) -> np.dtype:
    """A real dtype for weights and counts beside values of `dtype`: at least float32."""
    return np.finfo(wide(dtype)).dtype


def sample_shaped(values: Float[Array, " B"], like: Inexact[Array, "B ..."]) -> Array:
    """Values given for each sample (axis 0), shaped to multiply `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1)).astype(like.dtype)
