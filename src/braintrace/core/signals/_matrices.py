"""The matrices of feedback and of projected targets: as given, checked, or drawn."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, DTypeLike

from .._compat import is_key
from .._errors import CompilationError
from .._precision import wide
from ..jaxpr import Var

# a whole number, a key or the words of its data; None where the matrices are given
Seed = int | tuple[int, ...] | jax.Array | None
Wanted = tuple[tuple[int, ...], DTypeLike, float]  # shape, dtype, scale


def matrices(
    given: Sequence[ArrayLike] | None, seed: Seed, name: str, of: str, wanted: Sequence[Wanted]
) -> list[np.ndarray]:
    """The matrices of the option `name`, one for each `of`, `wanted` with a shape, a dtype and a
    scale: as the user gave them, checked, or normal numbers times the scale.
    """
    if given is None:
        # values, also where a transformation is under way; the seed is on the host
        with jax.ensure_compile_time_eval(), jax.transfer_guard("allow"):
            key = (
                jax.random.key(seed)
                if isinstance(seed, int)
                else jax.random.wrap_key_data(jnp.asarray(seed, jnp.uint32))
            )
            keys = [jax.random.fold_in(key, number) for number in range(len(wanted))]
            return [
                np.asarray(jax.random.normal(key, shape, wide(dtype)) * scale).astype(dtype)
                for key, (shape, dtype, scale) in zip(keys, wanted, strict=True)
            ]
    if len(given) != len(wanted):
        raise CompilationError(
            "The number of feedback matrices does not fit the model.",
            got=f"{len(given)} matrices in {name}",
            expected=f"{len(wanted)}: one for each {of}",
            do="look at the groups in the report",
        )
    found = [np.asarray(matrix) for matrix in given]
    for number, (matrix, (shape, dtype, _)) in enumerate(zip(found, wanted, strict=True)):
        if matrix.shape != shape:
            raise CompilationError(
                "A feedback matrix has a wrong shape.",
                got=f"{name}[{number}] of shape {matrix.shape}",
                expected=f"{shape}",
            )
        if np.iscomplexobj(matrix) and not jnp.issubdtype(dtype, np.complexfloating):
            raise CompilationError(
                "A feedback matrix is complex, and what it acts on is real.",
                got=f"{name}[{number}] of dtype {matrix.dtype}",
                expected="a real matrix",
            )
    return [matrix.astype(dtype) for matrix, (_, dtype, _) in zip(found, wanted, strict=True)]


def random_value(v: Var, random: np.random.Generator) -> Array:
    """A value for a variable of the step: normal numbers, zeros, or a key."""
    if v.differentiable:
        return jnp.asarray(random.normal(size=v.shape), v.dtype)
    if is_key(v.dtype):
        return jax.random.split(jax.random.key(0), v.shape) if v.shape else jax.random.key(0)
    return jnp.zeros(v.shape, v.dtype)
