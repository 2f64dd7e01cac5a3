"""Sparse products that are sites."""

import brainevent
import brainunit
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

_RANDOM = np.random.default_rng(11)
ROWS, COLUMNS, EACH, BATCH = 5, 4, 2, 3
MASK = _RANDOM.random((ROWS, COLUMNS)) < 0.5
MASK[0, 0] = True
DENSE = np.where(MASK, _RANDOM.standard_normal((ROWS, COLUMNS)), 0.0)
FIXED = np.stack(
    [_RANDOM.choice(COLUMNS, EACH, replace=False) for _ in range(ROWS)]
)  # of each row, its columns


def _events(*shape):
    return jnp.asarray((_RANDOM.random(shape) < 0.6).astype(float))


def _normal(*shape):
    return jnp.asarray(_RANDOM.standard_normal(shape))


def _bcoo(stored):
    """A matrix with an element stored twice and one of padding."""
    rows, columns = np.nonzero(MASK)
    index = np.stack(
        [np.append(rows, [rows[0], ROWS]), np.append(columns, [columns[0], COLUMNS])], -1
    )
    return sparse.BCOO((stored, jnp.asarray(index)), shape=(ROWS, COLUMNS))


_CSR = brainevent.CSR.fromdense(DENSE)
_CSC = brainevent.CSC.fromdense(DENSE)
_PER_PRE = brainevent.FixedNumPerPre(
    jnp.ones((ROWS, EACH)), jnp.asarray(FIXED), shape=(ROWS, COLUMNS)
)
_PER_POST = brainevent.FixedNumPerPost(
    jnp.ones((ROWS, EACH)), jnp.asarray(FIXED), shape=(COLUMNS, ROWS)
)
_NNZ = int(MASK.sum())

_INDEX = {"CSR": brainunit.sparse.CSR, "CSC": brainunit.sparse.CSC, "COO": brainunit.sparse.COO}
_UNIT = {name: kind.fromdense(jnp.asarray(DENSE)) for name, kind in _INDEX.items()}


def _homogeneous(matrix):
    return lambda w: type(matrix)((w, matrix.indices, matrix.indptr), shape=matrix.shape)


#: name -> (stored elements to a matrix, shape of the stored elements)
MATRICES = {
    "BCOO": (_bcoo, (_NNZ + 2,)),
    "brainevent.CSR": (_CSR.with_data, (_NNZ,)),
    "brainevent.CSC": (_CSC.with_data, (_NNZ,)),
    "brainevent.CSR, homogeneous": (_homogeneous(_CSR), (1,)),
    "brainevent.CSC, homogeneous": (_homogeneous(_CSC), (1,)),
}
FIXED_MATRICES = {
    "FixedNumPerPre": (_PER_PRE.with_data, (ROWS, EACH)),
    "FixedNumPerPost": (_PER_POST.with_data, (ROWS, EACH)),
}
UNIT_MATRICES = {"brainunit." + name: (matrix.with_data, (_NNZ,)) for name, matrix in _UNIT.items()}


def _forms(make, rows, columns, wrap):
    return {
        "v @ M": (lambda w, x: wrap(x) @ make(w), (rows,)),
        "X @ M": (lambda w, x: wrap(x) @ make(w), (BATCH, rows)),
        "M @ v": (lambda w, x: make(w) @ wrap(x), (columns,)),
        "M @ X": (lambda w, x: make(w) @ wrap(x), (columns, BATCH)),
        "vmap of v @ M": (lambda w, x: jax.vmap(lambda x: wrap(x) @ make(w))(x), (BATCH, rows)),
    }


def products(matrices, wrap=lambda x: x, draw=_normal):
    """name -> (operation, stored elements, x)"""
    found = {}
    for name, (make, stored) in matrices.items():
        forms = _forms(make, *make(jnp.ones(stored)).shape, wrap)
        found |= {
            f"{name}: {form}": (f, _normal(*stored), draw(*shape))
            for form, (f, shape) in forms.items()
        }
    return found


_EVENTS = {k: v for k, v in MATRICES.items() if k.startswith("brainevent")} | FIXED_MATRICES
_ALL = products(MATRICES) | products(UNIT_MATRICES)
_ALL |= {"events, " + k: v for k, v in products(_EVENTS, brainevent.BinaryArray, _events).items()}
_ALL["BCSR: M @ X"] = (
    lambda w, x: sparse.BCSR((w, _CSR.indices, _CSR.indptr), shape=_CSR.shape) @ x,
    _normal(_NNZ),
    _normal(COLUMNS, BATCH),
)


def _dense(make):
    """The dense matrix of stored elements, by JAX's or brainunit's own conversion."""
    return lambda w: make(w).todense()


#: What JAX has no right derivative for (the transposed CSR and COO products) or none at all:
#: (operation, stored, x, dense)
BY_DENSE = {
    f"{name}: {form}": (*_ALL.pop(f"{name}: {form}"), _dense(make))
    for name, (make, _) in UNIT_MATRICES.items()
    for form in (("v @ M", "X @ M") if name != "brainunit.CSC" else ())
}
BY_DENSE["BCOO: vmap of v @ M"] = (*_ALL.pop("BCOO: vmap of v @ M"), _dense(_bcoo))
for _name in [
    "brainunit.CSC: M @ v",
    "brainunit.CSC: M @ X",
    *(f"{n}: vmap of v @ M" for n in UNIT_MATRICES),
]:
    _ALL.pop(_name)  # a transposed product again; and no batching rule
SPARSE = _ALL
