"""Inputs of a dtype that is not the example's: converted where that changes no value."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core._compat import is_key, is_traced
from ..core._errors import UsageError

#: Indices of a wider dtype are converted to one of these bits also while they are traced.
_USUAL_BITS = 32


def check_values(tree: PyTree, problem: str, do: str) -> None:
    """Refuse shapes alone."""
    if any(isinstance(v, jax.ShapeDtypeStruct) for v in jax.tree.leaves(tree)):
        raise UsageError(problem, got="shapes alone", expected="arrays", do=do)


def unfit(value: PyTree, wanted: np.dtype) -> str | None:
    """Why `value` is not to be converted to `wanted`, to be written behind its dtype; None where it
    is.
    """
    own = np.result_type(value) if not hasattr(value, "dtype") else value.dtype
    if is_key(own) or is_key(wanted):
        return None if own == wanted else ""
    if jnp.issubdtype(own, jnp.complexfloating):
        return None if jnp.issubdtype(wanted, jnp.complexfloating) else ""
    if jnp.issubdtype(wanted, jnp.inexact) or np.can_cast(own, wanted):
        return None
    if not is_traced(value):
        given = np.asarray(value)
        with np.errstate(invalid="ignore"):  # NaN has no integer
            lost = given.astype(wanted) != given
        return f" that holds {given[lost].ravel()[0]}" if lost.any() else None
    whole = jnp.issubdtype(own, jnp.integer) and jnp.issubdtype(wanted, jnp.integer)
    if whole and jnp.iinfo(wanted).bits >= _USUAL_BITS:
        return None
    return ", of values that are not known while it is traced"
