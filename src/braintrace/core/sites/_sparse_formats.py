"""The sparse products of JAX, brainunit and brainevent: which operands say where the stored
elements are.

The primitives are known by name, because packages that are not imported cannot be asked for them,
and by the form of their operands. Operations on events (`binary_...`) take them as numbers, as
their own derivative does. `M @ x` has `transpose=False`, `x @ M` has True.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from ..jaxpr import Equation
from ._rule import SiteRule, register_named_rule
from ._sparse import Ends, HomogeneousRule, Pair, StoredRule

# Where elements are stored: their shape, `ends`, and the axes of x and y that hold the rows.
Form = tuple[tuple[int, ...], Ends] | tuple[tuple[int, ...], Ends, int, int]


def _rule(
    data: int, form: Callable[[Equation], Form | None], equation: Equation, operand: int
) -> SiteRule | None:
    """The rule for elements stored in a form, before operand `data`; None when the operands do not
    have the form of a product.
    """
    weight = equation.inputs[0]
    if operand or not weight.differentiable:
        return None
    if any(v.differentiable for v in equation.inputs[1:data]) or not (found := form(equation)):
        return None
    stored, ends, *axes = found
    size = math.prod(weight.shape)
    kind = StoredRule if size == math.prod(stored) else HomogeneousRule if size == 1 else None
    return kind and kind(equation, data, stored, ends, *axes)


def _rows_of(indptr: jax.Array, stored: int) -> jax.Array:
    count = indptr.shape[0] - 1
    rows = jnp.arange(count, dtype=indptr.dtype)
    return jnp.repeat(rows, jnp.diff(indptr), total_repeat_length=stored)


def _turn(out: jax.Array, into: jax.Array, transposed: bool) -> Pair:
    return (into, out) if transposed else (out, into)


def _csr(equation: Equation) -> Form:
    """(stored, indices, indptr, x, ...)"""
    transposed, stored = equation.params["transpose"], equation.inputs[1].size
    ends = lambda indices, indptr: _turn(_rows_of(indptr, stored), indices, transposed)
    return (stored,), ends


def _csr_indexed(equation: Equation) -> Form:
    """(stored, indices, indptr, order, x, ...): the k-th index belongs to stored element
    `order[k]`.
    """
    stored, ends, *_ = _csr(equation)

    def placed(indices: jax.Array, indptr: jax.Array, order: jax.Array) -> Pair:
        out, into = (jnp.zeros_like(v).at[order].set(v) for v in ends(indices, indptr))
        return out, into

    return stored, placed


def _coo(equation: Equation) -> Form:
    """(stored, row, col, x)"""
    ends = lambda row, col: _turn(row, col, equation.params["transpose"])
    return equation.inputs[1].shape, ends


def _fixed(equation: Equation) -> Form:
    """(stored, indices, x): row i is connected to `indices[i, :]`."""

    def ends(indices: jax.Array) -> Pair:
        own = jnp.arange(len(indices), dtype=indices.dtype)[:, None]
        return _turn(jnp.broadcast_to(own, indices.shape), indices, equation.params["transpose"])

    return equation.inputs[1].shape, ends


def _bcoo(equation: Equation) -> Form | None:
    """(stored, indices, x) with `dimension_numbers`: a matrix of numbers, one axis of it
    contracted.
    """
    *batch, stored, rank = equation.inputs[1].shape
    if rank != 2 or (numbers := _one_matrix(equation)) is None:
        return None
    own = equation.params["dimension_numbers"][0][0][0] - len(batch)
    return (stored,), lambda at: (at[..., 1 - own], at[..., own]), *numbers


def _bcsr(equation: Equation) -> Form | None:
    """(stored, indices, indptr, x) with `dimension_numbers`."""
    *batch, stored = equation.inputs[1].shape
    if (numbers := _one_matrix(equation)) is None:
        return None
    transposed = equation.params["dimension_numbers"][0][0][0] == len(batch)
    ends = lambda indices, indptr: _turn(_rows_of(indptr.reshape(-1), stored), indices, transposed)
    return (stored,), ends, *numbers


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


_FORMATS: dict[str, tuple[int, Callable[[Equation], Form | None]]] = {
    "bcoo_dot_general": (2, _bcoo),
    "bcsr_dot_general": (3, _bcsr),
    "coo_matvec coo_matmat": (3, _coo),
    "csr_matvec csr_matmat csrmv csrmm binary_csrmv binary_csrmm": (3, _csr),
    "binary_csrmv_indexed binary_csrmm_indexed": (4, _csr_indexed),
    "fcnmv fcnmm ell_binary_matvec binary_fcnmv binary_fcnmm": (2, _fixed),
}
for _names, _format in _FORMATS.items():
    for _name in _names.split():
        register_named_rule(_name, functools.partial(_rule, *_format))
