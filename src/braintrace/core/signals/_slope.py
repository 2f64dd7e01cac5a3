"""The slope of a layer's activity: dz/dy, element by element."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._compat import is_key
from .._errors import CompilationError
from ..jaxpr import Var, evaluate, variables
from ._editor import Editor
from ._matrices import random_value


def surrogate(editor: Editor, y: Var, z: Var) -> Var:
    """dz/dy, element by element, of the step's own equations between them."""

    at = editor.source_of(y)
    refuse = functools.partial(CompilationError, do="use EProp or D_RTRL", at=at)
    path = editor.between({y}, z)
    if y.shape != z.shape:
        raise refuse(
            "A layer's drive and its activity differ in shape.",
            got=f"{y.shape} and {z.shape}",
            expected="one shape",
        )
    if any(jnp.issubdtype(v.dtype, np.complexfloating) for v in (y, z)):
        raise refuse(
            "The rule keeps dz/dy, the derivative of a real activity by a real drive.",
            got=f"a drive of dtype {y.dtype} and an activity of dtype {z.dtype}",
            expected="real ones",
        )
    if not path and y is not z:
        raise refuse(
            "A drive does not reach its layer's activity at its own step, so the rule would give "
            "it no gradient.",
            got="a drive that acts on the activity at a later step only",
            expected="an activity made from the state that its drive moves",
        )
    made = {v for e in path for v in e.outputs} | {y}
    read = dict.fromkeys(variables(v for e in path for v in e.inputs))
    others = [v for v in read if v not in made]
    copies = [dataclasses.replace(e, inputs=list(e.inputs)) for e in path]

    def pulled(cotangent: Array, y_value: Array, *values: Array) -> Array:
        def run(at: Array) -> Array:
            env: dict[Var, Array] = {y: at, **dict(zip(others, values, strict=True))}
            evaluate(copies, env)
            return env[z]

        return jax.vjp(run, y_value)[1](cotangent)[0]

    if not _keeps_order(pulled, y, z, others):
        raise refuse(
            "A layer's drive and its activity are not in one order.",
            got="elements that move between the two",
            expected="the activity of each neuron where its drive is",
        )
    slope = lambda *values: pulled(jnp.ones(z.shape, z.dtype), *values)
    return editor.apply(slope, y, *others)


def _keeps_order(pulled: Callable[..., Array], y: Var, z: Var, others: list[Var]) -> bool:
    """Whether dz/dy is diagonal: a random cotangent comes back scaled by what ones come back as."""
    if any(is_key(v.dtype) for v in others):
        return True  # drawn noise cannot move elements
    random = np.random.default_rng(0)
    with jax.ensure_compile_time_eval():
        *values, c = [random_value(v, random) for v in (y, *others, z)]
        mixed, scaled = pulled(c, *values), pulled(jnp.ones_like(c), *values) * c
        a, b = (np.asarray(v).astype(np.float64) for v in (mixed, scaled))
    rounding = 8 * float(jnp.finfo(z.dtype).eps)
    off, like = max(1e-2, rounding), np.max(np.abs(b), initial=0, where=np.isfinite(b))
    return np.allclose(a, b, rtol=off, atol=1e-6 + rounding * like, equal_nan=True)
