"""Weights that multiply nothing: rows of a table, and the weight itself."""

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..core._errors import UsageError, problem
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
        TypeError: when the indices are no integers.
        UsageError: when the weight has no rows.

    The trace of a per-parameter rule has an entry for each row of the table; a factored rule's does
    not (`pp_prop`).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> braintrace.embedding(jnp.array([0, 2]), jnp.arange(6.0).reshape(3, 2))
    Array([[0., 1.],
           [4., 5.]], dtype=float32)
    """
    if not jnp.issubdtype(jnp.result_type(indices), jnp.integer):
        got = f"dtype {jnp.result_type(indices)}"
        raise TypeError(problem("Indices of an embedding are integers.", got=got))
    if np.ndim(weight) < 2:
        raise UsageError(
            "The table of an embedding has rows.",
            got=f"shape {np.shape(weight)}",
            expected="(number of rows, ...)",
        )
    number, unit = split(transformed(weight, weight_fn))
    return join(number[jnp.asarray(indices)], unit)


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
    return transformed(weight, weight_fn)
