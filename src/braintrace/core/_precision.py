"""Half precision: coefficients and sums over steps are formed in float32 at least.

A decay of 0.999 is 1 in bfloat16, and a sum of many steps stops growing there.
"""

import jax
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import PyTree

from ._compat import is_differentiable


def wide(dtype: DTypeLike) -> np.dtype:
    """A dtype for traces and sums of values of `dtype`: at least float32."""
    return np.promote_types(np.dtype(dtype), np.float32)


def widened(tree: PyTree) -> PyTree:
    """The differentiable arrays of a tree, and what has their form, in their `wide` dtype."""

    def one(value: PyTree) -> PyTree:
        dtype = getattr(value, "dtype", None)
        if dtype is None or not is_differentiable(dtype) or wide(dtype) == dtype:
            return value
        return value.astype(wide(dtype))

    return jax.tree.map(one, tree)


def narrowed(tree: PyTree, like: PyTree) -> PyTree:
    """The arrays of a tree in the dtypes of those of `like`, or of what has their form."""
    return jax.tree.map(
        lambda v, own: v if v.dtype == own.dtype else v.astype(own.dtype), tree, like
    )
