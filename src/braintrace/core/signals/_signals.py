"""Learning signals and output filters, as edits of a cell's program (see `Editor`).

Throughout, `sg` is `stop_gradient` and every addition has the value zero: the cell computes what it
computed.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._errors import CompilationError, problem
from ..analysis import Exit, ExitKind, Site
from ..jaxpr import Atom, Var
from ..traces._filters import counting, lane_shaped, leaky_step
from ._editor import Edit, Editor

sg = jax.lax.stop_gradient

TARGET = "target"  # the signal y*, times the weight of the step's loss
RATE_SCALE = "rate scale"  # for each lane, the weight of the rate's term at this step


@dataclasses.dataclass(frozen=True)
class OutputFilter(Edit):
    """A leaky sum at every exit z that a readout consumes: `F <- leak F + z`, and the readout's
    gradient goes to F.

    With dL/dz at the readout's edge in its place, dL/dF times the eligibility of F is the filtered
    eligibility of z: what e-prop calls the trace filtered with kappa, and OTPE's R-hat.
    """

    replaces: ClassVar[str] = "the readout is filtered in time"

    leak: float | None  # None: that of the model's own leaky readout

    def resolve(self, exits: list[Exit], leak_of: Callable[[int], float]) -> "OutputFilter":
        if self.leak is not None:
            return self
        found = {leak_of(g) for x in exits if x.kind is ExitKind.READOUT for g in x.feeds}
        if len(found) != 1:
            raise CompilationError(
                problem(
                    "The filter cannot be read from the model.",
                    got=f"{len(found)} different leaks of readouts",
                    expected="leaky readouts of one leak",
                    do="give kappa_filter_decay as a number",
                )
            )
        return OutputFilter(found.pop())

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        assert self.leak is not None
        leak = self.leak
        chosen: dict[Var, list[Exit]] = {}
        for found in exits:
            if found.kind is ExitKind.READOUT:
                chosen.setdefault(found.variable, []).append(found)
        for z, edges in chosen.items():
            leaf = editor.add_leaf("output filter", np.zeros(z.shape, z.dtype))
            new = editor.apply(lambda f, z: leaky_step(f, z, leak), leaf, z)
            editor.set_leaf(leaf, new)
            through = editor.apply(lambda z, f: sg(z) + (f - sg(f)), z, new)
            for found in edges:
                editor.redirect(found.edge, through)


@dataclasses.dataclass(frozen=True)
class Feedback(Edit):
    """A feedback weight B in the backward pass of each readout: `y = W sg(z) + (B z - sg(B z))`.

    Random: B is drawn once, N(0, 1) scale / sqrt(fan-in). Adaptive (Kolen-Pollack): B and W get the
    same increments and both decay, so B - W decays by itself: B = sg(W) + E with `E <- (1 - decay)
    E`, which needs no increment to be observed.
    """

    replaces: ClassVar[str] = "a feedback weight stands for the readout's"

    adaptive: bool
    seed: Any
    scale: float
    decay: float = 0.0
    weights: tuple[Any, ...] | None = dataclasses.field(default=None, compare=False)

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        sites = {s.equation: s for s in editor.graph.sites if s.is_operation}
        readouts = [x for x in exits if x.kind is ExitKind.READOUT]
        if not readouts:
            raise CompilationError(
                problem(
                    "No readout that a feedback weight could replace was found.",
                    expected="an output, or a leaky readout, fed by a product of the hidden "
                    "activity with a weight",
                    do="read the activity out with a linear layer inside the model, or use "
                    "feedback='symmetric'",
                )
            )
        _check_number(self.weights, len(readouts), "feedback_weights", "readout")
        for number, found in enumerate(readouts):
            equation, k = found.edge
            w = _weight_of(equation, k, sites, editor)
            b = self._weight(editor, w, number)
            z = equation.inputs[k]
            operation = equation.copy()
            editor.redirect(found.edge, editor.apply(sg, z))
            operation.inputs[1 - k] = b
            operation.inputs[k] = z
            editor.equations.append(operation)
            y, feedback = equation.outputs[0], operation.outputs[0]
            add = functools.partial(editor.apply, lambda y, b: y + (b - sg(b)))
            editor.replace(y, lambda y, add=add, feedback=feedback: add(y, feedback))

    def _weight(self, editor: Editor, w: Any, number: int) -> Atom:
        if self.weights is not None:
            drawn = _given(self.weights, number, tuple(w.shape), "feedback_weights").astype(w.dtype)
        else:
            drawn = normal(
                self.seed, number, w.shape, w.dtype, self.scale / np.sqrt(max(w.shape[0], 1))
            )
        if not self.adaptive:
            return editor.constant(drawn)
        leaf = editor.add_leaf("feedback", drawn, inert=True, shared=True)
        kept = editor.apply(lambda e: sg(e) * (1 - self.decay), leaf)
        editor.set_leaf(leaf, kept)
        return editor.apply(lambda w, e: sg(w) + sg(e), w, leaf)


def _weight_of(equation: Any, k: int, sites: dict[Any, Site], editor: Editor) -> Any:
    if len(equation.inputs) == 2 and (
        equation in sites or equation.inputs[1 - k] in editor.graph.prelude_results
    ):
        return equation.inputs[1 - k]
    raise CompilationError(
        problem(
            "A readout is not a product of the hidden activity with a weight, so no feedback "
            "weight can replace it.",
            got=equation.name,
            expected="a linear readout (x @ w, a convolution)",
            do="use feedback='symmetric'",
            at=equation.source,
        )
    )


def _check_number(given: tuple[Any, ...] | None, number: int, name: str, of: str) -> None:
    if given is not None and len(given) != number:
        raise CompilationError(
            problem(
                "The number of feedback matrices does not fit the model.",
                got=f"{len(given)} matrices in {name}",
                expected=f"{number}: one for each {of}",
                do="look at the groups in the report",
            )
        )


def _given(given: tuple[Any, ...], number: int, shape: tuple[int, ...], name: str) -> np.ndarray:
    """The matrix that the user gave for one readout or group, checked."""
    matrix = np.asarray(given[number])
    if matrix.shape != shape:
        raise CompilationError(
            problem(
                "A feedback matrix has a wrong shape.",
                got=f"{name}[{number}] of shape {matrix.shape}",
                expected=f"{shape}",
            )
        )
    return matrix


def key_of(seed: int | tuple[int, ...]) -> Any:
    """The PRNG key of a whole number, or of the words of a key's data."""
    return (
        jax.random.key(seed)
        if isinstance(seed, int)
        else jax.random.wrap_key_data(jnp.asarray(seed, jnp.uint32))
    )


def normal(seed: Any, number: int, shape: tuple[int, ...], dtype: Any, scale: float) -> np.ndarray:
    """Normal numbers for the `number`-th matrix of a seed: numbers even where the model is analysed
    inside a transformation.
    """
    with jax.ensure_compile_time_eval():
        drawn = jax.random.normal(jax.random.fold_in(key_of(seed), number), shape, dtype)
        return np.asarray(drawn * scale)


@jax.custom_vjp
def inject(out: Any, signal: Any) -> Any:
    """`out`, whose backward pass also differentiates the scalar `signal`, whatever the cotangent of
    `out`.
    """
    return out


inject.defvjp(
    lambda out, signal: (out, signal), lambda signal, cotangent: (cotangent, jnp.ones_like(signal))
)


def add_linear_loss(editor: Editor, signal: Atom) -> None:
    """Let the backward pass of the step's first differentiable output add the gradient of the
    scalar `signal`.
    """
    for k, out in enumerate(editor.outs):
        if isinstance(out, Var) and out.differentiable:
            editor.outs[k] = editor.apply(inject, out, signal)
            return
    raise CompilationError(
        problem(
            "The cell has no output that a loss could read.",
            expected="a cell that returns (carry, out) with a real out",
        )
    )


def _widest(exits: list[Exit]) -> Any:
    """A dtype for signals at `exits`: at least float32."""
    return np.result_type(np.float32, *(counting(x.variable.dtype) for x in exits))


@dataclasses.dataclass(frozen=True)
class FiringRate(Edit):
    """Adds the gradient of `strength / 2 sum_j (f_j - target)^2`, f_j the mean activity of exit j
    over lanes and steps.

    f is a running mean (of this stream so far); the term of step t is `strength (f_j - target)
    mean_lanes z_j`.
    """

    replaces: ClassVar[str] = "a firing-rate term is added"

    target: float
    strength: float

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        lanes = editor.graph.lanes or 1
        scale = editor.signal(RATE_SCALE, np.full((lanes,), 1 / lanes, _widest(exits)))
        seen: dict[Var, None] = {}
        for found in exits:
            if found.kind is not ExitKind.RECURRENT:
                seen.setdefault(found.variable)
        for activity in seen:
            z = (
                activity if editor.graph.lanes else editor.apply(lambda v: v[None], activity)
            )  # without a batch: one lane
            mean = editor.add_leaf("firing rate", np.zeros(z.shape, z.dtype), inert=True)
            count = editor.add_leaf(
                "steps of the firing rate", np.zeros(z.shape[:1], counting(z.dtype)), inert=True
            )
            n = editor.apply(lambda n: sg(n) + 1, count)
            m = editor.apply(
                lambda m, z, n: sg(m) + (sg(z) - sg(m)) / lane_shaped(n, z), mean, z, n
            )
            editor.set_leaf(mean, m)
            editor.set_leaf(count, n)

            def term(z: Any, m: Any, scale: Any) -> Any:
                excess = sg(m.mean(0, keepdims=True)) - self.target
                return (self.strength * excess * z * lane_shaped(scale, z)).sum()

            add_linear_loss(editor, editor.apply(term, z, m, scale))


@dataclasses.dataclass(frozen=True)
class TargetProjection(Edit):
    """The signal `-y* B_l` at the exits of each hidden group; nothing from above reaches them. The
    output keeps its error.
    """

    replaces: ClassVar[str] = "a projected target stands for the loss"

    seed: Any
    scale: float
    weights: tuple[Any, ...] | None = dataclasses.field(default=None, compare=False)

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        lanes = editor.graph.lanes or 1
        n_target = self._n_target(editor)
        hidden = [found for found in exits if found.kind is not ExitKind.RECURRENT]
        target = editor.signal(TARGET, np.zeros((lanes, n_target), _widest(hidden)))
        sources: dict[int, Var] = {}
        for found in hidden:
            sources.setdefault(found.group, found.variable)
        _check_number(self.weights, len(sources), "B_list", "hidden group")
        for number, z in enumerate(sources.values()):
            size = int(np.prod(z.shape)) // lanes
            b = self._weight(number, n_target, size)
            term = lambda z, y, b: -jnp.vdot((sg(y).astype(z.dtype) @ b).reshape(z.shape), z)
            add_linear_loss(
                editor, editor.apply(term, z, target, editor.constant(b.astype(z.dtype)))
            )
        for found in hidden:
            editor.redirect(found.edge, editor.apply(sg, found.edge[0].inputs[found.edge[1]]))

    def _n_target(self, editor: Editor) -> int:
        if self.weights:
            return int(np.shape(self.weights[0])[0])
        out = next((v for v in editor.outs if isinstance(v, Var) and v.differentiable), None)
        return out.shape[-1] if out is not None and out.shape else 1

    def _weight(self, number: int, n_target: int, size: int) -> np.ndarray:
        if self.weights is not None:
            return _given(self.weights, number, (n_target, size), "B_list")
        return normal(self.seed, number, (n_target, size), None, self.scale)
