"""What a user's step fails with, said in terms of the example that it was given."""

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core._compat import raised_line
from ..core._errors import BrainTraceError, CompilationError, UsageError, first_line

#: For a step that returns its output first.
IN_ORDER = "return the new carry first, -> (carry, out): the second value is like the carry"


class MisfitError(CompilationError):
    """A step that fails at the example, or gives back another state than it got: the example may
    not be what the step takes.
    """


@contextlib.contextmanager
def users_step(example: dict[str, PyTree], do: str) -> Iterator[None]:
    """Inside runs a user's step; what it raises is said with the shapes of its `example`."""
    try:
        yield
    except BrainTraceError:
        raise
    except NameError as error:
        if "unbound axis name" not in str(error):
            raise
        raise CompilationError(
            "The step names an axis that nothing maps over.",
            got=first_line(error),
            expected="a step that runs by itself at its example",
            do="leave axis_name out of layers that see a whole batch; of a brainstate model for "
            "one sample, compile(..., vmap=True, axis_name=...)",
            at=raised_line(error),
        ) from error
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        given = ", ".join(f"{name} {shown(tree)}" for name, tree in example.items())
        raise MisfitError(
            "The step fails at the example.",
            got=first_line(error),
            expected=f"a step that takes {given}",
            do=do,
            at=raised_line(error),
        ) from error


def first_steps(inputs: PyTree) -> PyTree:
    """The inputs of the first step, if these are whole sequences; None where they cannot be."""
    leaves = jax.tree.leaves(inputs)
    if len({jnp.shape(v)[:1] for v in leaves} - {()}) != 1 or not all(map(jnp.ndim, leaves)):
        return None
    is_shape = lambda v: isinstance(v, jax.ShapeDtypeStruct)
    first = lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype) if is_shape(v) else v[0]
    return jax.tree.map(first, inputs)


def whole_sequence(inputs: PyTree, first: PyTree) -> UsageError:
    """The step takes the first of what was given as the inputs of one step."""
    return UsageError(
        "The example is not that of one step.",
        got=shown(inputs),
        expected=f"{shown(first)}, which the step takes",
        do="compile with the first step of a sequence, x[0]",
    )


def shown(tree: PyTree) -> str:
    """The dtypes and shapes of a tree's arrays, without their values."""
    leaves, structure = jax.tree.flatten(tree)
    dtype = lambda v: getattr(v, "dtype", type(v).__name__)
    texts = [_Shown(f"{dtype(v)}{list(getattr(v, 'shape', ()))}") for v in leaves]
    return str(structure.unflatten(texts))


class _Shown(str):
    """A text that is shown without quotes inside a tree."""

    __slots__ = ()
    __repr__ = str.__str__


def is_swapped(carry: PyTree, got: Any) -> bool:
    """Whether the second value of a pair is like the carry, and the first is not."""
    like = lambda v: [(jnp.shape(a), jnp.result_type(a)) for a in jax.tree.leaves(v)]
    same = lambda v: jax.tree.structure(v) == jax.tree.structure(carry) and like(v) == like(carry)
    try:
        return not same(got[0]) and same(got[1])
    except TypeError:  # of what is no array
        return False
