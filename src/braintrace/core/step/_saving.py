"""A step whose reverse pass is cheap in memory traffic: it keeps what products gave and recomputes
what is elementwise.

A window stacks what its reverse pass needs. Elementwise results are made again faster than they are
written and read back.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from .._compat import named, sub_jaxprs
from ..analysis import CellGraph
from ..jaxpr import ELEMENTWISE, Equation
from ._evaluate import Perturbations, Step, Values, step

_MOVES = named(
    "broadcast_in_dim concatenate expand_dims iota pad reshape rev slice split squeeze transpose"
)
_CHEAP = frozenset(p.name for p in (*ELEMENTWISE, *_MOVES))


def saving_step(
    graph: CellGraph,
    ready: Values,
    carry: Values,
    xs: Values,
    perturbations: Perturbations | None = None,
) -> Step:
    """As `step`, for a loop that is differentiated in reverse.

    It is `step` where a cell calls back to Python, which must happen once, and where it has complex
    numbers, for which `jax.checkpoint` cannot keep results.
    """
    is_complex = lambda v: jnp.issubdtype(v.dtype, np.complexfloating)
    if any(calls_back(e) or any(map(is_complex, e.outputs)) for e in graph.step):
        return step(graph, ready, carry, xs, perturbations)
    saved = jax.checkpoint(
        functools.partial(step, graph),
        prevent_cse=False,
        policy=lambda primitive, *_, **__: primitive.name not in _CHEAP,
    )
    return saved(ready, carry, xs, perturbations)


def calls_back(equation: Equation | JaxprEqn) -> bool:
    """Whether an equation of a program, or of a program inside it, calls back to Python."""
    inner = (e for program in sub_jaxprs(equation.params) for e in program.jaxpr.eqns)
    return "callback" in equation.primitive.name or any(map(calls_back, inner))
