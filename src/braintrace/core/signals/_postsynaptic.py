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
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import P, is_key
from .._errors import CompilationError, problem
from ..analysis import Exit, ExitKind
from ..jaxpr import Atom, Const, Equation, Var, evaluate
from ..traces._filters import counting, lane_shaped, leaky_step
from ._editor import Edit, Editor

sg = jax.lax.stop_gradient

LAYOUT = (
    P.reshape_p,
    P.transpose_p,
    P.squeeze_p,
    P.copy_p,
)  # what may stand between an activity and the operation that reads it


@dataclasses.dataclass(frozen=True)
class Postsynaptic(Edit):
    """`leak` of the layers' membranes; `approximate` for F-OTPE."""

    replaces: ClassVar[str] = "postsynaptic estimates stand for the layers above"

    leak: float
    approximate: bool = False

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        forward = [x for x in exits if x.kind is not ExitKind.RECURRENT]
        self._check(forward)
        groups = list(dict.fromkeys(x.group for x in forward))
        leaves = {leaf for g in groups for leaf in editor.graph.groups[g].leaves}
        editor.marks["hidden"] = frozenset(leaves)
        drives: dict[
            int, list[tuple[Equation, int]]
        ] = {}  # operations that a lower layer feeds, by the group they drive
        for found in forward:
            if found.kind is ExitKind.FORWARD:
                for g in found.feeds:
                    drives.setdefault(g, []).append(found.edge)
        shadow: dict[
            Equation, Var
        ] = {}  # each fed operation, repeated on what it reads, at a constant weight
        for g in _bottom_up(groups, forward):
            z = next(x.variable for x in forward if x.group == g)
            through = editor.apply(sg, z)
            if not self.approximate:
                leaf = editor.add_leaf("output filter", np.zeros(z.shape, z.dtype))
                new = editor.apply(lambda r, z: leaky_step(r, z, self.leak), leaf, z)
                editor.set_leaf(leaf, new)
                through = editor.apply(lambda t, r: t + (r - sg(r)), through, new)
            own = self._own_drives(editor, g) if self.approximate else []
            if self.approximate:
                through = editor.apply(
                    lambda t, r: t + (r - sg(r)), through, _at_constant_drive(editor, own, z)
                )
            below = [(e.outputs[0], shadow[e]) for e, _ in drives.get(g, [])]
            active, laid_out = _before_layout(editor, z)
            for y, read in [(y, y) for y in own] + below:
                mean = self._mean_surrogate(editor, y, active)
                term = lambda t, g, y, f=laid_out: t + f(sg(g) * (y - sg(y)))
                through = editor.apply(term, through, mean, read)
            for found in forward:
                if found.group != g:
                    continue
                e, k = found.edge
                if found.kind is ExitKind.READOUT:
                    editor.redirect(found.edge, through)
                    continue
                copy = e.copy()
                copy.inputs = [editor.apply(sg, v) if isinstance(v, Var) else v for v in e.inputs]
                copy.inputs[k] = through
                editor.equations.append(copy)
                shadow[e] = copy.outputs[0]
                editor.redirect(found.edge, editor.apply(sg, z))

    def _check(self, forward: list[Exit]) -> None:
        by_group: dict[int, set[Var]] = {}
        for found in forward:
            by_group.setdefault(found.group, set()).add(found.variable)
        crowded = [g for g, variables in by_group.items() if len(variables) > 1]
        if crowded:
            raise CompilationError(
                problem(
                    "OTPE needs one activity per layer, read by all that read the layer.",
                    got=f"{len(by_group[crowded[0]])} different variables of one layer are read",
                    do="read the layer's spikes in one place, or use EProp or D_RTRL",
                )
            )

    def _own_drives(self, editor: Editor, group: int) -> list[Var]:
        sites = [
            s
            for s in editor.graph.sites
            if s.is_operation and any(p.group == group for p in s.places)
        ]
        return list(dict.fromkeys(s.y for s in sites))

    def _mean_surrogate(self, editor: Editor, y: Var, z: Var) -> Atom:
        """The leaky mean of dz/dy."""
        psi = surrogate(editor, y, z)
        mean = editor.add_leaf("mean surrogate", np.zeros(y.shape, y.dtype), inert=True)
        count = editor.add_leaf(
            "weight of the mean", np.zeros(y.shape[:1], counting(y.dtype)), inert=True
        )
        n = editor.apply(lambda c: leaky_step(sg(c), jnp.ones_like(c), self.leak), count)
        m = editor.apply(
            lambda g, c, n, p: (self.leak * lane_shaped(c, g) * sg(g) + sg(p)) / lane_shaped(n, g),
            mean,
            count,
            n,
            psi,
        )
        editor.set_leaf(mean, m)
        editor.set_leaf(count, n)
        return m


def _bottom_up(groups: list[int], forward: list[Exit]) -> list[int]:
    """Groups in an order in which each comes after those that feed it."""
    order: list[int] = []
    while len(order) < len(groups):
        ready = [
            g
            for g in groups
            if g not in order
            and all(
                x.group in order for x in forward if g in x.feeds and x.kind is ExitKind.FORWARD
            )
        ]
        if not ready:
            raise CompilationError(
                problem(
                    "OTPE is defined for layers that feed each other one way.",
                    got="layers that feed each other in a circle",
                    do="use OSTLRecurrent, EProp or D_RTRL",
                )
            )
        order += ready
    return order


def surrogate(editor: Editor, y: Var, z: Var) -> Atom:
    """dz/dy, element by element, of the step's own equations between them."""
    if y.shape != z.shape:
        raise CompilationError(
            problem(
                "A layer's drive and its activity differ in shape.",
                got=f"{y.shape} and {z.shape}",
                expected="one shape",
                do="use EProp or D_RTRL",
            )
        )
    path = _between(editor, {y}, z)
    made = {v for e in path for v in e.outputs} | {y}
    others = list(
        dict.fromkeys(
            v for e in path for v in e.inputs if not isinstance(v, Const) and v not in made
        )
    )
    copies = [Equation(e.primitive, list(e.inputs), e.outputs, e.params, e.source) for e in path]

    def pulled(cotangent: Any, y_value: Any, *values: Any) -> Any:
        def run(at: Any) -> Any:
            env: dict[Var, Any] = {y: at, **dict(zip(others, values, strict=True))}
            evaluate(copies, env)
            return env[z]

        return jax.vjp(run, y_value)[1](cotangent)[0]

    if not _keeps_order(pulled, y, z, others):
        raise CompilationError(
            problem(
                "A layer's drive and its activity are not in one order.",
                got="elements that move between the two",
                expected="the activity of each neuron where its drive is",
                do="use EProp or D_RTRL",
            )
        )
    slope = lambda *values: pulled(jnp.ones(z.shape, z.dtype), *values)
    return editor.apply(slope, y, *others)


def _keeps_order(pulled: Callable[..., Any], y: Var, z: Var, others: list[Any]) -> bool:
    """Whether dz/dy is diagonal: a random cotangent comes back scaled by what ones come back as."""
    if any(is_key(v.dtype) for v in others):
        return True  # drawn noise cannot move elements
    random = np.random.default_rng(0)

    def some(v: Any) -> Any:
        return (
            random.normal(size=v.shape).astype(v.dtype)
            if v.differentiable
            else np.zeros(v.shape, v.dtype)
        )

    with jax.ensure_compile_time_eval():
        values, c = [jnp.asarray(some(v)) for v in (y, *others)], jnp.asarray(some(z))
        a, b = np.asarray(pulled(c, *values)), np.asarray(pulled(jnp.ones_like(c), *values) * c)
    return np.allclose(
        a.astype(np.float64), b.astype(np.float64), rtol=1e-2, atol=1e-6, equal_nan=True
    )


def _between(editor: Editor, sources: set[Var], z: Var) -> list[Equation]:
    """The step's equations on the ways from `sources` to `z`, in order."""
    reached, after = set(sources), []
    for e in editor.graph.step:
        if any(v in reached for v in e.inputs):
            reached.update(e.outputs)
            after.append(e)
    needed, path = {z}, []
    for e in reversed(after):
        if any(v in needed for v in e.outputs):
            needed.update(v for v in e.inputs if isinstance(v, Var))
            path.append(e)
    return path[::-1]


def _at_constant_drive(editor: Editor, drives: list[Var], z: Var) -> Atom:
    """`z` made again from its drives as constants: it differentiates by the parameters that act
    behind them.
    """
    renamed: dict[Any, Atom] = {y: editor.apply(sg, y) for y in drives}
    for e in _between(editor, set(drives), z):
        copy = e.copy()
        copy.inputs = [renamed.get(v, v) for v in e.inputs]
        editor.equations.append(copy)
        renamed |= {
            old: new for old, new in zip(e.outputs, copy.outputs, strict=True) if old not in drives
        }
    return renamed.get(z, z)


def _before_layout(editor: Editor, z: Var) -> tuple[Var, Callable[[Any], Any]]:
    """The activity that `z` is a reshaped copy of, and the function that reshapes."""
    maker = {v: e for e in editor.graph.step for v in e.outputs}
    first, chain = z, []
    while (
        (e := maker.get(first)) is not None
        and e.primitive in LAYOUT
        and isinstance(v := e.inputs[0], Var)
    ):
        chain.insert(0, e)
        first = v
    copies = [Equation(e.primitive, list(e.inputs), e.outputs, e.params, e.source) for e in chain]

    def lay_out(value: Any) -> Any:
        env: dict[Var, Any] = {first: value}
        evaluate(copies, env)
        return env[z]

    return first, lay_out
