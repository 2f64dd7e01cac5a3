"""Inputs of a dtype that is not the example's: converted where that changes no value. Inputs of
another structure, a unit say: taken where the step does the same with them.
"""

import contextlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from ..core._compat import ClosedJaxpr, is_key, is_traced
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


def same_program(first: ClosedJaxpr, second: ClosedJaxpr) -> bool:
    """Whether two programs do the same with equal constants, wherever their functions lie."""
    one, other = (re.sub("0x[0-9a-f]+", "", str(made)) for made in (first, second))
    return one == other and all(map(_equal, first.consts, second.consts))


def _equal(one: Any, other: Any) -> bool:
    traced = is_traced(one) or is_traced(other)
    return not traced and (one is other or np.array_equal(one, other))


def does_the_same(
    step: Callable[..., PyTree], before: tuple[PyTree, PyTree], example: PyTree, other: Any
) -> bool:
    """Whether `step(*before, x)` is one program for the example's leaves in its own structure and
    in `other`; not where it does not take the other.
    """
    leaves, structure = jax.tree.flatten(example)
    if other.num_leaves != len(leaves):
        return False

    def program(structure: Any) -> tuple[ClosedJaxpr, Any]:
        x = structure.unflatten(leaves)
        made, out = jax.make_jaxpr(step, return_shape=True)(*before, x)
        return made, jax.tree.structure(out)

    with contextlib.suppress(Exception):  # whatever a step raises for what it does not take
        (made, out), (other_made, other_out) = map(program, (structure, other))
        return out == other_out and same_program(made, other_made)
    return False
