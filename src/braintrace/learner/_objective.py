"""The gradient of a sequence, on flat lists, from a step of the user's own; a loss of the cell's
output is one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.typing import ArrayLike
from jaxtyping import PyTree, Real

from ..cell import Cell, Mask, Reset, check_samples, scale_of, sequence_length, weights_of
from ..cell._arguments import (
    Modulator,
    checked_marks,
    checked_mask,
    checked_modulator,
    checked_target,
    checked_window,
)
from ..cell._loss import check_axis
from ..cell._user_step import (
    OF_OUTPUT,
    Outside,
    Take,
    UserStep,
    check_takes,
    taken_once,
    user_body,
    user_step,
)
from ..core._domains import choice, flag
from ..core._precision import narrowed, widened
from ..core.engine import (
    Refusal,
    Rule,
    driver_signals,
    exact_gradient,
    sequence_gradient,
    undifferentiated,
)
from ..core.engine._records import EngineState, Problem, Steps
from ..core.traces import ErrorBound, begun, learned_in
from ._fidelity import Fidelity, bounded, compared
from ._kept import UserFunction
from ._state import Info

Target = Real[ArrayLike, "... O"] | None


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a step's loss is: a `function` of the output and the targets, or a step of the user's
    own.

    `adapt(step_fn, has_aux)` is that step on the cell's params. `counts`: whether a new one counts
    as compiled anew.
    """

    function: UserFunction
    is_step: bool
    has_aux: bool
    adapt: Callable[[Any, bool], UserStep]
    counts: bool = True

    @classmethod
    def of(
        cls,
        loss_fn: Callable[..., PyTree] | None,
        step_fn: Callable[..., PyTree] | None,
        has_aux: bool,
        adapt: Callable[[Any, bool], UserStep],
    ) -> "Objective":
        """Of one of `loss_fn` and `step_fn`."""
        chosen: Any = step_fn if loss_fn is None else loss_fn
        return cls(UserFunction(chosen), loss_fn is None, has_aux, adapt)

    def __post_init__(self) -> None:
        flag("has_aux", self.has_aux)

    def step(self) -> UserStep:
        """The loss of a step as a step of the user's own."""
        function = self.function()
        if self.is_step:
            return self.adapt(function, self.has_aux)

        def step(_: PyTree, call: Callable[[PyTree], PyTree], x: PyTree, *target: PyTree) -> PyTree:
            check_takes("loss_fn", function, 1 + len(target), OF_OUTPUT)
            return function(call(x), *target)

        return user_step(step, self.has_aux, "loss_fn")


@dataclasses.dataclass(frozen=True)
class Plan:
    """The static part of an `etrace_grad` call; a compiled program is kept for each.

    `resets`: the leaves of the engine's carry that a reset sets to their initial values. `wanted`:
    for each parameter, whether its gradient is. `fidelity`: whether it is held against the exact
    one.
    """

    resets: tuple[int, ...]
    objective: Objective
    reduction: str
    window: int
    keep_trace: bool
    wanted: tuple[bool, ...]
    fidelity: bool = False


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Given:
    """The arrays of an `etrace_grad` call: sequences (inputs first), marks of resets (T, B) and the
    carry that they go back to, mask, targets and modulators of the algorithm, and what the user's
    step has of its own.
    """

    sequences: tuple[PyTree, ...]
    marks: Any
    initial: list[jax.Array]
    mask: Mask | None
    y_target: Any
    modulator: Any
    outside: Outside


@dataclasses.dataclass(frozen=True)
class Options:
    """What `etrace_grad` of every front end takes, beside the loss; see `FunctionLearner`. Each is
    checked when it is given, as far as its values are known, and held in one form.
    """

    mask: Mask | None = None
    reset: Reset | None = None
    window: int | None = None
    reduction: str = "mean"
    return_state: bool = True
    y_target: Target = None
    modulator: Modulator | None = None
    fidelity: bool = False
    donate: bool = False

    def __post_init__(self) -> None:
        choice("reduction", self.reduction, ("mean", "sum"))
        forms = {
            "mask": lambda mask: checked_mask(mask, self.reduction),
            "reset": checked_marks,
            "window": checked_window,
            "return_state": lambda value: flag("return_state", value),
            "y_target": checked_target,
            "modulator": checked_modulator,
            "fidelity": lambda value: flag("fidelity", value),
            "donate": lambda value: flag("donate", value),
        }
        flags = "return_state", "fidelity", "donate"
        for name, form in forms.items():
            if (value := getattr(self, name)) is not None or name in flags:
                object.__setattr__(self, name, form(value))


def gradient(
    cell: Cell,
    rule: Rule,
    plan: Plan,
    params: list[jax.Array],
    carry: list[jax.Array],
    traces: PyTree,
    given: Given,
) -> PyTree:
    """((gradients of the params, of what is outside of the model), carry, traces, Info, the outside
    values that moved on). The values that the user's step carries on stand behind the engine's
    carry.
    """
    params = _constant("params", params)
    carry, traces = _constant("the state", (carry, traces))
    given = _constant("the sequences, the mask or what step_fn reads", given)
    sequences, mask, outside = given.sequences, given.mask, given.outside
    step, reads_params = plan.objective.step(), plan.objective.is_step
    live = [k for k, v in enumerate(cell.graph.params) if v.differentiable and reads_params]

    def on_flat(
        chosen: PyTree, carry: PyTree, take: Take, slices: PyTree, moving: list[jax.Array]
    ) -> PyTree:
        values = [jax.lax.stop_gradient(v) for v in params]
        own_params, own_live = narrowed(chosen, extra)
        for k, v in zip(live, own_params, strict=True):
            values[k] = v
        own = Outside(own_live, moving, outside.fixed)
        return step(cell.params.unflatten(values), carry, take, slices, own)

    extra = [params[k] for k in live], outside.live
    slices = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), sequences)
    shape = _loss_shape(cell, on_flat, extra, slices, outside.moving)
    weights = weights_of(mask, shape, sequence_length(sequences), plan.reduction)
    scale = scale_of(mask, shape, sequence_length(sequences), plan.reduction)
    asked = given.y_target, given.modulator, rule.target_timing
    signals = driver_signals(cell.graph, weights, *asked, scale)
    problem, marks = (
        Problem(cell.graph, rule, user_body(cell, on_flat, mask, reads_params), plan.resets),
        given.marks,
    )
    dead = None
    if mask is not None and marks is not None:
        counts = weights if weights.ndim > 1 else weights[:, None]
        dead = problem.dead(counts != 0, marks, plan.keep_trace)
    steps = Steps((sequences, weights), signals, marks, dead, problem.resets_whole)

    def online(traces: PyTree, keep_trace: bool) -> PyTree:
        start = EngineState.of(cell.graph, [*carry, *outside.moving], traces)
        how = {"window": plan.window, "keep_trace": keep_trace, "initial": given.initial}
        return sequence_gradient(problem, params, widened(extra), start, steps, **how)

    def of_params(found: PyTree) -> list[jax.Array | None]:
        """The gradients of the parameters: through the model, and beside it."""
        gradients, (of_own, _) = list(found[0]), narrowed(found[1], extra)
        for k, more in zip(live, of_own, strict=False):
            gradients[k] = gradients[k] + more
        pairs = zip(gradients, plan.wanted, strict=False)
        return [g if wanted else None for g, wanted in pairs]

    found, state, ((losses, aux), by_step) = online(traces, plan.keep_trace)
    kept, (_, of_live) = of_params(found), narrowed(found[1], extra)

    def fidelity() -> dict[str, Fidelity]:
        if isinstance(by_step, ErrorBound):
            return bounded(cell.graph, params, kept, by_step)
        fresh = kept
        if traces is not None:
            zero = begun(rule.init(cell.graph), None, traces) if learned_in(traces) else None
            fresh = of_params(online(zero, False)[0])
        plain = cell.plain or cell
        body = user_body(plain, on_flat, mask, reads_params)
        own = narrowed(list(carry), list(plain.graph.carry))
        exact = exact_gradient(
            Problem(plain.graph, rule, body, plan.resets),
            params,
            widened(extra),
            [*own, *outside.moving],
            dataclasses.replace(steps, signals={}),
            given.initial,
        )
        return compared([row.path for row in cell.graph.parameters], fresh, of_params(exact))

    info = Info(losses, aux, by_step, fidelity() if plan.fidelity else None)
    after, traces = state.parts(cell.graph)
    own = len(carry)
    return (kept, of_live), after[:own], traces, info, after[own:]


def _constant(what: str, values: PyTree) -> PyTree:
    """`values`, which what `etrace_grad` returns is not differentiated by. Hyperparameters that a
    loss holds are: the traces do not depend on them.
    """
    refusal = Refusal(
        "What etrace_grad returns is not differentiated.",
        f"a derivative with respect to {what}",
        "values that do not depend on what is differentiated",
        "use the gradients that it returns; for derivatives of them differentiate the cell itself; "
        "where none is meant, pass jax.lax.stop_gradient of the values",
    )
    return undifferentiated(values, refusal)


def _loss_shape(
    cell: Cell, step: Callable[..., PyTree], live: PyTree, slices: PyTree, moving: list[jax.Array]
) -> jax.ShapeDtypeStruct:
    """The shape of a user's loss, from shapes alone; what is a vector is one of samples."""

    def look(outs: PyTree, live: PyTree, carry: PyTree, *given: PyTree) -> jax.Array:
        before = cell.carry.unflatten(carry)

        def take(x: PyTree) -> PyTree:
            cell.x.inputs(x, "input x")
            return (before, cell.out.unflatten(outs)), None

        return taken_once(lambda take: step(live, before, take, *given), take)[0][0]

    given = live, cell.carry.leaves, slices, moving
    loss = jax.eval_shape(look, cell.out.leaves, *given)
    check_samples(loss, cell.graph.batch_size)
    if loss.shape:
        check_axis(cell.graph, look, cell.out.leaves, *given)
    return loss
