"""Products with a diagonal matrix: each neuron is scaled, and none is mixed with another.

A matrix that parameters and constants alone make is diagonal when its other elements are zero
whatever the parameters are: a mask, or `jnp.diag`, says so.
"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import P, Params, is_traced
from ._linear import SIGNS
from ._program import Atom, Const, Equation, Var

_KEEPS_ZERO = SIGNS | {P.div_p}  # zero where their first operand is


def diagonal_side(
    operands: Sequence[Atom], params: Params, makers: Mapping[Var, Equation]
) -> int | None:
    """The operand of a product that is a diagonal matrix; `makers` has the equations of what
    parameters alone make.
    """
    contract, batch = params["dimension_numbers"]
    if batch[0] or len(contract[0]) != 1:
        return None
    for side in (1, 0):
        matrix, other = operands[side], operands[1 - side]
        square = len(matrix.shape) == 2 and matrix.shape[0] == matrix.shape[1]
        if square and matrix in makers and other not in makers and isinstance(other, Var):
            known = nonzero(matrix, makers)
            if known is not None and np.count_nonzero(known) == known.diagonal().sum():
                return side
    return None


def scaled(side: int, params: Params, dtype: np.dtype, *operands: jax.Array) -> jax.Array:
    """The product, with the diagonal of operand `side`."""
    contract, _ = params["dimension_numbers"]
    diagonal = operands[side].sum(contract[side][0])
    result = jnp.moveaxis(operands[1 - side], contract[1 - side][0], -1) * diagonal
    return (result if side == 1 else jnp.moveaxis(result, -1, 0)).astype(dtype)


def nonzero(atom: Atom, makers: Mapping[Var, Equation]) -> np.ndarray | None:
    """Which elements of what parameters and constants make may be other than zero, whatever the
    parameters are; None: any.
    """
    return _nonzero(atom, makers, {})


def _nonzero(
    atom: Atom, makers: Mapping[Var, Equation], known: dict[Var, np.ndarray | None]
) -> np.ndarray | None:
    """Which elements may be other than zero; None: any."""
    if isinstance(atom, Const):
        return None if is_traced(atom.value) else np.asarray(atom.value) != 0
    if atom not in known:
        maker = makers.get(atom)
        known[atom] = None if maker is None else _made(maker, makers, known)
    return known[atom]


def _made(
    e: Equation, makers: Mapping[Var, Equation], known: dict[Var, np.ndarray | None]
) -> np.ndarray | None:
    shape = e.outputs[0].shape
    of = lambda k: _nonzero(e.inputs[k], makers, known)
    spread = lambda found: np.broadcast_to(True if found is None else found, shape)
    if e.primitive is P.mul_p:
        a, b = of(0), of(1)
        return None if a is None and b is None else spread(a) & spread(b)
    if e.primitive is P.select_n_p and isinstance(e.inputs[0], Const) and len(e.inputs) == 3:
        return np.where(np.asarray(e.inputs[0].value), spread(of(2)), spread(of(1)))
    scalar = e.primitive is P.broadcast_in_dim_p and e.inputs[0].shape == ()
    if not (scalar or e.primitive in _KEEPS_ZERO or e.primitive is P.transpose_p):
        return None
    if (nonzero := of(0)) is None:
        return None
    if e.primitive is P.transpose_p:
        return np.transpose(nonzero, e.params["permutation"])
    return spread(nonzero)
