"""The product with a sparse matrix."""

import sys
from typing import Any

import jax
import numpy as np

from ..core._errors import UsageError
from ._units import Transform, Value, check_operands, fitted, join, split, transformed, with_bias

Matrix = Any  # a sparse matrix of brainevent, brainunit or JAX


def sparse_matmul(
    x: Value,
    weight: Value,
    *,
    sparse_mat: Matrix,
    bias: Value = None,
    weight_fn: Transform | None = None,
    bias_fn: Transform | None = None,
) -> Value:
    """`y = x @ M(weight_fn(weight)) + bias_fn(bias)`, with M(w) the sparse matrix whose stored
    elements are w.

    Args:
        x: (I,) or (batch, I); of brainevent's events (`BinaryArray`) where the matrix is one of
            brainevent's.
        weight: the stored elements, in the shape in which the matrix stores them.
        sparse_mat: where they are: a matrix of brainevent (`CSR`, `CSC`, `FixedNumPerPre`,
            `FixedNumPerPost`), of `brainunit.sparse`, or a `jax.experimental.sparse.BCOO`, of shape
            (I, O). Its own elements are not read.
        bias: (O,), or None.
        weight_fn, bias_fn: transforms that keep the shape, as in `matmul`.

    Returns:
        (O,) or (batch, O), in the product of the units of x and weight.

    Raises:
        UsageError: when `sparse_mat` is not a sparse matrix, or an operand does not fit it.

    The trace has an entry for each stored element; see the page on sparse weights.

    >>> import jax.numpy as jnp
    >>> from jax.experimental import sparse
    >>> import braintrace
    >>> matrix = sparse.BCOO.fromdense(jnp.array([[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]))
    >>> braintrace.sparse_matmul(jnp.ones((1, 2)), jnp.array([5.0, 6.0, 7.0]), sparse_mat=matrix)
    Array([[6., 5., 7.]], dtype=float32)
    """
    if not hasattr(sparse_mat, "shape"):
        raise no_matrix(sparse_mat)
    fits = np.shape(x)[-1:] == tuple(sparse_mat.shape)[:1]
    check_operands("sparse_matmul", fits, x=(x, "(..., I)"), sparse_mat=(sparse_mat, "(I, O)"))
    number, unit = split(transformed(weight, weight_fn))
    product = lambda: x @ with_elements(sparse_mat, number)
    y = fitted("sparse_matmul", product, x=x, weight=number)
    own = getattr(sparse_mat.data, "unit", None)  # which the elements have taken over
    return with_bias(join(y if own is None else y / own, unit), bias, bias_fn)


def with_elements(matrix: Matrix, elements: jax.Array) -> Matrix:
    """The sparse matrix with other stored elements, in the unit of its own."""
    sparse = sys.modules.get("jax.experimental.sparse")  # slow to load; a BCOO has loaded it
    if sparse is not None and isinstance(matrix, sparse.BCOO):
        known = {"indices_sorted": matrix.indices_sorted, "unique_indices": matrix.unique_indices}
        return sparse.BCOO((elements, matrix.indices), shape=matrix.shape, **known)
    if not hasattr(matrix, "with_data"):
        raise no_matrix(matrix)
    return matrix.with_data(join(elements, getattr(matrix.data, "unit", None)))


def no_matrix(value: object) -> UsageError:
    return UsageError(
        "Not a sparse matrix.",
        got=type(value).__name__,
        expected="a matrix of brainevent or brainunit.sparse, or a jax.experimental.sparse.BCOO",
        do="use matmul for a dense weight",
    )
