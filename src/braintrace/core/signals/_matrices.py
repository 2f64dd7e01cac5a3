"""The matrices of feedback and of projected targets: as given, checked, or drawn."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike, DTypeLike

from .._errors import CompilationError

# a whole number, a key or the words of its data; None where the matrices are given
Seed = int | tuple[int, ...] | jax.Array | None


def check_number(given: Sequence[ArrayLike] | None, number: int, name: str, of: str) -> None:
    if given is not None and len(given) != number:
        raise CompilationError(
            "The number of feedback matrices does not fit the model.",
            got=f"{len(given)} matrices in {name}",
            expected=f"{number}: one for each {of}",
            do="look at the groups in the report",
        )


def matrix(
    given: Sequence[ArrayLike] | None,
    seed: Seed,
    scale: float,
    name: str,
    number: int,
    shape: tuple[int, ...],
    dtype: DTypeLike,
) -> np.ndarray:
    """The `number`-th matrix of the option `name`: as the user gave it, checked, or normal numbers
    times `scale`.
    """
    if given is None:
        with jax.ensure_compile_time_eval():  # values, also where a transformation is under way
            key = (
                jax.random.key(seed)
                if isinstance(seed, int)
                else jax.random.wrap_key_data(jnp.asarray(seed, jnp.uint32))
            )
            drawn = jax.random.normal(jax.random.fold_in(key, number), shape, dtype)
            return np.asarray(drawn * scale)
    matrix = np.asarray(given[number])
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
    return matrix.astype(dtype)
