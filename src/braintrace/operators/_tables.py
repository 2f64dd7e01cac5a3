"""Weights that multiply nothing: rows of a table, and the weight itself."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..core._domains import array
from ..core._errors import UsageError
from ._units import Transform, Value, join, split, transformed


def embedding(indices: ArrayLike, weight: Value, *, weight_fn: Transform | None = None) -> Value:
    """`y = weight_fn(weight)[indices]`: rows of a table.

    Args:
        indices: integers of any shape.
        weight: (V, ...), a row for each of V indices.
        weight_fn: a transform that keeps the shape, as in `matmul`.

    Returns:
        `(*indices.shape, *weight.shape[1:])`, in the unit of the weight.

    Raises:
        UsageError: when the indices are no integers, or the weight has no rows.

    The trace of a per-parameter rule has an entry for each row of the table; a factored rule's does
    not (`pp_prop`).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.embedding(jnp.array([0, 2]), jnp.arange(6.0).reshape(3, 2))
    Array([[0., 1.],
           [4., 5.]], dtype=float32)
    """
    found = array("indices", indices)
    if not jnp.issubdtype(found.dtype, jnp.integer):
        raise UsageError(
            "Indices of an embedding are integers.",
            got=f"dtype {found.dtype}",
            expected="whole numbers, of rows of the table",
        )
    if np.ndim(weight) < 2:
        raise UsageError(
            "The table of an embedding has rows.",
            got=f"shape {np.shape(weight)}",
            expected="(number of rows, ...)",
        )
    number, unit = split(transformed(weight, weight_fn))
    return join(number[found], unit)


def element_wise(weight: Value, *, weight_fn: Transform | None = None) -> Value:
    """`weight_fn(weight)`: a parameter that acts on each neuron by itself, such as a time constant,
    a gain or a threshold.

    Args:
        weight: any array.
        weight_fn: a transform of it; None for the weight itself.

    Returns:
        `weight_fn(weight)`, in the unit of the weight.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.element_wise(jnp.zeros(2), weight_fn=jnp.exp)
    Array([1., 1.], dtype=float32)
    """
    split(weight)  # which refuses what is no array
    return transformed(weight, weight_fn, same=False)
