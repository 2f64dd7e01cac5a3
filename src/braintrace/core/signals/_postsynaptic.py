"""OTPE's signals: filtered eligibility at a hidden layer's spikes, and an averaged surrogate on the
way down.

For a hidden layer with spikes z and drive y, leak l of the layer above:

    R  <- l R + z      (its eligibility is R-hat, the decay of the layer's influence above)
    c  <- l c + 1,   g <- (l c_old g_old + dz/dy) / c          (the leaky mean of the surrogate)
    what the layer above reads:  sg(z) + (R - sg R) + sg(g) (y' - sg y')

with y' the layer's drive recomputed from what it reads itself, at constant weights. So the layer's
own weights learn from R, and the layers below through g. In the approximate form (F-OTPE) the own
weights learn through g too, from a twice filtered input, and the layer's other parameters (biases,
time constants) from z of their own step, the drive held constant.
"""

import dataclasses
import functools
import graphlib
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._compat import is_key
from .._errors import CompilationError
from ..analysis import Exit, ExitKind, activities
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Var, evaluate, variables
from ._editor import TO_OTHERS, Edit, Editor, by_edge, sg
from ._linear_loss import check_batch_in_front
from ._matrices import random_value


@dataclasses.dataclass(frozen=True)
class Postsynaptic(Edit):
    """`leak` of the layers' membranes; `approximate` for F-OTPE."""

    replaces: ClassVar[str] = "postsynaptic estimates stand for the layers above"

    leak: float
    approximate: bool = False

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        active = activities(editor.graph, exits)
        edges = by_edge([x for x in exits if x.group in active], *TO_OTHERS)
        mixing, sites = {x.edge for x in exits}, [s for s in editor.graph.sites if s.is_operation]
        leaves = {leaf for g in active for leaf in editor.graph.groups[g].leaves}
        editor.marks["hidden"] = frozenset(leaves)
        through: dict[Var, Atom] = {}  # what is read in place of each activity
        shadow: dict[Edge, Var] = {}  # each fed operation, repeated on that, at a constant weight
        for g in _bottom_up(list(active), edges):
            z, fed = active[g], [edge for edge, found in edges.items() if g in found[0].feeds]
            for edge in fed:
                if edge not in shadow:
                    shadow[edge] = _shadow(editor, edge, through, mixing)
            # the drives of the group that act through the mean surrogate, each as it is read
            drives = [(edge[0].outputs[0], shadow[edge]) for edge in fed]
            if self.approximate:
                own = dict.fromkeys(s.y for s in sites if g in [p.group for p in s.places])
                drives = [(y, y) for y in own] + drives
                estimate = editor.again(z, {y: editor.stopped(y) for y in own})
            else:
                here = [x for x in exits if x.group == g and x.kind in TO_OTHERS]
                estimate = editor.leaky_sum(z, self.leak, here)
            read = editor.apply(lambda z, r: sg(z) + (r - sg(r)).astype(z.dtype), z, estimate)
            for y, y_read in drives:
                slope = surrogate(editor, y, z)
                if editor.graph.batch is not None:  # the mean's weight is counted by sample
                    check_batch_in_front(editor, y)
                mean = editor.leaky_mean("mean surrogate", slope, self.leak)
                seen = lambda t, g, y: t + (sg(g) * (y - sg(y))).astype(t.dtype)
                read = editor.apply(seen, read, mean, y_read)
            through[z] = read
        for (equation, k), found in edges.items():
            read = {active[x.group]: through[active[x.group]] for x in found}
            if found[0].kind is ExitKind.FORWARD:
                read = {z: editor.stopped(z) for z in read}
            equation.inputs[k] = editor.again(found[0].variable, read, mixing)


def _shadow(editor: Editor, edge: Edge, through: dict[Var, Atom], mixing: set[Edge]) -> Var:
    """The result of a fed operation again, from what is read in place of the activities."""
    equation, k = edge
    copy = equation.copy()
    copy.inputs = [editor.stopped(v) for v in equation.inputs]
    operand = equation.inputs[k]
    assert isinstance(operand, Var)
    copy.inputs[k] = editor.again(operand, through, mixing, editor.stopped)
    editor.equations.append(copy)
    return copy.outputs[0]


def _bottom_up(groups: list[int], edges: dict[Edge, list[Exit]]) -> list[int]:
    """Groups in an order in which each comes after those that feed it."""
    feeding = {
        g: [x.group for found in edges.values() for x in found if g in x.feeds] for g in groups
    }
    try:
        return list(graphlib.TopologicalSorter(feeding).static_order())
    except graphlib.CycleError:
        raise CompilationError(
            "OTPE is defined for layers that feed each other one way.",
            got="layers that feed each other in a circle",
            do="use OSTLRecurrent, EProp or D_RTRL",
        ) from None


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
            "OTPE averages dz/dy, the derivative of a real activity by a real drive.",
            got=f"a drive of dtype {y.dtype} and an activity of dtype {z.dtype}",
            expected="real ones",
        )
    if not path and y is not z:
        raise refuse(
            "A drive does not reach its layer's activity at its own step, so OTPE would give it "
            "no gradient.",
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
