"""The sparse products of JAX, brainunit and brainevent: which operands say where the stored
elements are.

The primitives are known by name, because packages that are not imported cannot be asked for them,
and by the form of their operands. Operations on events (`binary_...`) take them as numbers, as
their own derivative does. `M @ x` has `transpose=False`, `x @ M` has True.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..jaxpr import Equation
from ._rule import SiteRule, register_named_rule
from ._sparse import Ends, HomogeneousRule, Pair, SparseRule


def _rule(
    equation: Equation,
    data: int,
    structure: list[int],
    stored: tuple[int, ...],
    ends: Ends,
    axis: int = 0,
    y_axis: int = 0,
) -> SiteRule | None:
    """The rule for elements stored in the form `stored`; None when the operands do not have the
    form of a product.
    """
    weight = equation.inputs[0]
    if not weight.differentiable or any(equation.inputs[k].differentiable for k in structure):
        return None
    size = math.prod(weight.shape)
    kind = SparseRule if size == math.prod(stored) else HomogeneousRule if size == 1 else None
    if kind is None:
        return None
    return kind(
        equation, data=data, structure=structure, ends=ends, stored=stored, axis=axis, y_axis=y_axis
    )


def _rows_of(indptr: jax.Array, stored: int) -> jax.Array:
    count = indptr.shape[0] - 1
    rows = jnp.arange(count, dtype=indptr.dtype)
    return jnp.repeat(rows, jnp.diff(indptr), total_repeat_length=stored)


def _turn(out: jax.Array, into: jax.Array, transposed: bool) -> Pair:
    return (into, out) if transposed else (out, into)


def _csr(equation: Equation) -> SiteRule | None:
    """(stored, indices, indptr, x, ...)"""
    transposed, stored = equation.params["transpose"], equation.inputs[1].shape[0]
    ends = lambda indices, indptr: _turn(_rows_of(indptr, stored), indices, transposed)
    return _rule(equation, 3, [1, 2], (stored,), ends)


def _csr_indexed(equation: Equation) -> SiteRule | None:
    """(stored, indices, indptr, order, x, ...): the k-th index belongs to stored element
    `order[k]`.
    """
    transposed, stored = equation.params["transpose"], equation.inputs[1].shape[0]

    def ends(indices: jax.Array, indptr: jax.Array, order: jax.Array) -> Pair:
        place = lambda v: jnp.zeros_like(v).at[order].set(v)
        return _turn(place(_rows_of(indptr, stored)), place(indices), transposed)

    return _rule(equation, 4, [1, 2, 3], (stored,), ends)


def _coo(equation: Equation) -> SiteRule | None:
    """(stored, row, col, x)"""
    transposed = equation.params["transpose"]
    ends = lambda row, col: _turn(row, col, transposed)
    return _rule(equation, 3, [1, 2], equation.inputs[1].shape, ends)


def _fixed(equation: Equation) -> SiteRule | None:
    """(stored, indices, x): row i is connected to `indices[i, :]`."""
    transposed, (rows, each) = equation.params["transpose"], equation.inputs[1].shape

    def ends(indices: jax.Array) -> Pair:
        own = jnp.broadcast_to(jnp.arange(rows, dtype=indices.dtype)[:, None], indices.shape)
        return _turn(own, indices, transposed)

    return _rule(equation, 2, [1], (rows, each), ends)


def _bcoo(equation: Equation) -> SiteRule | None:
    """(stored, indices, x) with `dimension_numbers`: a matrix of numbers, one axis of it
    contracted.
    """
    indices = equation.inputs[1].shape
    (contract, _) = equation.params["dimension_numbers"]
    if indices[-1] != 2 or (numbers := _one_matrix(equation)) is None:
        return None
    own = contract[0][0] - (len(indices) - 2)
    ends = lambda indices: (indices[..., 1 - own], indices[..., own])
    return _rule(equation, 2, [1], (indices[-2],), ends, *numbers)


def _bcsr(equation: Equation) -> SiteRule | None:
    """(stored, indices, indptr, x) with `dimension_numbers`."""
    indices = equation.inputs[1].shape
    (contract, _) = equation.params["dimension_numbers"]
    if (numbers := _one_matrix(equation)) is None:
        return None
    own = contract[0][0] - (len(indices) - 1)
    ends = lambda indices, indptr: _turn(
        _rows_of(indptr.reshape(-1), indices.size), indices, own == 0
    )
    return _rule(equation, 3, [1, 2], indices[-1:], ends, *numbers)


def _one_matrix(equation: Equation) -> tuple[int, int] | None:
    """The axes of x and of y that hold the rows; None for anything but one matrix, which `vmap`
    gives a batch axis of size 1.
    """
    (contract, batch) = equation.params["dimension_numbers"]
    stored = equation.inputs[0].shape
    batches = len(batch[0])
    if len(contract[0]) != 1 or len(stored) != 1 + batches or math.prod(stored[:-1]) != 1:
        return None
    leading = tuple(range(batches))
    return (contract[1][0], batches) if set(map(tuple, batch)) == {leading} else None


_FORMATS: dict[str, Callable[[Equation], SiteRule | None]] = {
    "bcoo_dot_general": _bcoo,
    "bcsr_dot_general": _bcsr,
    "coo_matvec coo_matmat": _coo,
    "csr_matvec csr_matmat csrmv csrmm binary_csrmv binary_csrmm": _csr,
    "binary_csrmv_indexed binary_csrmm_indexed": _csr_indexed,
    "fcnmv fcnmm ell_binary_matvec binary_fcnmv binary_fcnmm": _fixed,
}
for _names, _make in _FORMATS.items():
    for _name in _names.split():
        register_named_rule(
            _name, lambda equation, operand, make=_make: make(equation) if operand == 0 else None
        )
