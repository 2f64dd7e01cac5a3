"""A user's step function around the learner's call: which states it touches, and the same as a
pure step of the functional learner.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import brainstate
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ...cell import (
    Outside,
    Take,
    Values,
    check_finite,
    check_samples,
    merged,
    sequence_length,
    split,
    weigh,
    weights_of,
)
from ...cell._samples import without_padding
from ...cell._user_step import front_axes
from ...core._compat import is_differentiable, is_traced
from ...core._domains import array, leaf
from ...core._errors import UsageError
from ...core._precision import narrowed, widened
from ...gradients import bptt_gradient
from ...learner import Info, Objective, Options, State, UserFunction, one_after_another
from ...learner._finite import Result, check_results
from ._states import Layout, lent
from ._windows import check_window, in_windows, loss_of_one, one_step

if TYPE_CHECKING:
    from ._algorithm import ETraceAlgorithm

stop = jax.lax.stop_gradient
transform: Any = brainstate.transform  # its annotations are narrower than what it does

# gradients by the state's id, and what the sequence reports
Found = tuple[dict[int, PyTree], Info]


class StepFunction:
    """One step function of a learner, at the shapes of its slices.

    Attributes:
        steps: how many steps a slice holds, where it is a window of the multi-step form.
        calls: how often it calls the learner.
        nested: whether it does so inside a transformation of its own.
        disturbed: model states that change otherwise than by the learner's call.
    """

    def __init__(
        self,
        step_fn: Callable[..., PyTree],
        learner: "ETraceAlgorithm",
        has_aux: bool,
        wanted: tuple[brainstate.State, ...],
        steps: int | None,
        structure: Any,
        *slices: jax.ShapeDtypeStruct,
    ):
        self.learner, self.core = learner, learner.functional
        self._function, self.has_aux, self.wanted = UserFunction(step_fn), has_aux, wanted
        self.steps, self.calls, self.nested = steps, 0, False
        self.disturbed: set[str] = set()
        written, read = self._look(structure.unflatten(slices))
        outer = [s for s in wanted if s not in self.core.module.states]
        self.moving = _layout([s for s in written if s not in outer])
        self.fixed = _layout([*outer, *(s for s in read if s not in outer)])
        leaves = self.fixed.read().leaves
        count = sum(tree.num_leaves for tree in self.fixed.structures[: len(outer)])
        # the leaves of `fixed` to differentiate by
        self.live = [k for k in range(count) if is_differentiable(jnp.result_type(leaves[k]))]
        adapt = lambda *_: self.step
        self.objective = Objective(self._function, True, has_aux, adapt, counts=False)
        self._compiled = transform.jit(self._run_one_by_one, static_argnums=2)

    @classmethod
    def of(
        cls,
        learner: "ETraceAlgorithm",
        step_fn: Callable[..., PyTree],
        has_aux: bool,
        sequences: PyTree,
        wanted: Sequence[brainstate.State],
        steps: int | None = None,
    ) -> "StepFunction":
        """The step at the slices of `sequences`, windows of `steps` steps where that is a number;
        those used last are kept with the learner.
        """
        leaves, structure = jax.tree.flatten(sequences)
        known = [leaf("sequence", v) for v in leaves]
        slices = [jax.ShapeDtypeStruct(v.shape[1:], v.dtype) for v in known]
        counts = not any(map(is_traced, leaves))
        key = (learner, has_aux, tuple(wanted), steps, structure, *slices)
        return learner._steps.of(UserFunction(step_fn), *key, counts=counts)

    @property
    def step_fn(self) -> Callable[..., PyTree]:
        """The user's function, which its caller holds."""
        return self._function()

    # What the step does
    # --------------------------------------------------------------------------------------------

    def _look(
        self, slices: tuple[PyTree, ...]
    ) -> tuple[list[brainstate.State], list[brainstate.State]]:
        """Trace the step once: the states outside of the learner that it writes, and that it reads.

        A call inside a transformation of the step's own (a `jit`, say) must be the ordinary one:
        the transformation may keep its program, here or from before, and use it again. So must one
        with a window.
        """
        layout, last, own = self.core.module.carry, [], self.learner._own_states

        def look() -> None:
            now = layout.read().leaves
            named = zip(layout.leaf_names, last, now, strict=True)
            self.disturbed |= {n for n, a, b in named if a is not b}
            last[:] = now

        def run(*slices: PyTree) -> PyTree:
            level = brainstate.util.StateJaxTracer()

            def call(inputs: tuple[PyTree, ...]) -> PyTree:
                self.calls += 1
                if self.steps:
                    check_window(inputs, self.steps)
                if self.steps or not level.is_valid():
                    self.nested = True
                    with self.learner._calling(None):
                        return self.learner(*inputs)
                x = one_step(inputs)
                look()
                for state in own:  # a call may be touched to see which states are to be mapped
                    state.value  # noqa: B018
                out = self.core.forward(x)
                last[:] = layout.read().leaves
                return out

            last[:] = layout.read().leaves
            with self.learner._calling(call):
                result = self.step_fn(*slices)
            if self.nested:  # brainstate has called it outside as well, to see what it touches
                self.disturbed.clear()
            else:
                look()
            return jax.tree.map(lambda v: array("result of step_fn", v), result)

        known = [*self.core.module.states, *own]
        written, read = [], []
        with lent(known) as trace:
            self.result = jax.eval_shape(run, *slices)
            for state, wrote in zip(trace.states, trace.been_writen, strict=True):
                if state in own and wrote:  # by a program that a transformation has kept
                    self.nested, self.calls = True, max(self.calls, 1)
                if state not in known:
                    (written if wrote else read).append(state)
        if self.calls == 0:
            raise UsageError(
                "step_fn does not call the learner.",
                expected="a function that calls learner(x) and returns the loss of a step",
                do="call the learner in it, not the model",
            )
        return written, read

    def check(self, options: Options) -> None:
        """What a gradient asks of the step."""
        states = self.core.module.carry
        named = zip(states.leaf_names, states.leaf_states(), strict=True)
        short = {n for n, s in named if isinstance(s, brainstate.ShortTermState)}
        if hidden := sorted(short & self.disturbed):
            raise UsageError(
                "step_fn writes a state of the model outside of learner(x).",
                got=hidden,
                expected="states that only the learner's call writes: traces would not follow",
                do="to reset samples pass reset=, a (T, B) array; to reset all call "
                "reset_state(model=True)",
            )
        check_samples(self._loss_of_one, self.core.graph.batch_size)
        for name in ("reset", "y_target", "modulator"):
            if getattr(options, name) is not None:
                self.check_windowed(f"With {name}")

    @property
    def _loss_of_one(self) -> jax.ShapeDtypeStruct:
        """The shape of the loss of one step."""
        loss, _ = split(self.result, self.has_aux)
        return loss_of_one(loss, self.steps) if self.steps else loss

    @property
    def windowed(self) -> bool:
        """Whether steps can be taken together."""
        return self.calls == 1 and not self.nested and not self.disturbed

    def check_windowed(self, where: str) -> None:
        """Refuse what needs steps that can be taken together."""
        if not self.windowed:
            inside = f"windows of {self.steps} steps" if self.steps else "a transformation"
            otherwise = sorted(self.disturbed) or f"a call inside {inside}"
            raise UsageError(
                f"{where}, step_fn calls the learner once, directly, and leaves the model's states "
                "to it.",
                got=otherwise if self.calls == 1 else f"{self.calls} calls",
                expected="one call of learner(x)",
                do="call learner(x) once, not inside a transformation of step_fn's own; give "
                "step_fn a RandomState of its own; reset between calls of etrace_grad",
            )

    # Steps together
    # --------------------------------------------------------------------------------------------

    def gradient(self, sequences: tuple[PyTree, ...], options: Options) -> Found:
        """The gradient of a sequence. States are written when it has succeeded."""
        if not self.windowed:
            return self._one_by_one(sequences, options)
        (of_model, of_outer), new, info, moved = self.taken(
            *self.learner._now(known_zero=True), sequences, options
        )
        self.moving.write(moved)
        self.learner._move(new, hidden=options.return_state)
        of_fixed = self._with_live([None] * len(self.fixed.leaf_names), of_outer)
        found = by_state(self.core.module.params, of_model) | by_state(self.fixed, of_fixed)
        return found, info

    def taken(
        self, params: Values, state: State, sequences: tuple[PyTree, ...], options: Options
    ) -> Any:
        """`FunctionLearner.sequence_gradient` of the step."""
        given = params, state, sequences, self.objective, options
        return self.core.sequence_gradient(*given, self.outside())

    def outside(self) -> Outside:
        """The present values outside of the model."""
        fixed = self.fixed.read().leaves
        moving = [jnp.asarray(v) for v in self.moving.read().leaves]
        return Outside([fixed[k] for k in self.live], moving, fixed)

    def _with_live(self, fixed: Sequence[Any], live: Sequence[jax.Array]) -> list[Any]:
        """`fixed` with `live` in the places of what is differentiated by."""
        values = dict(enumerate(fixed)) | dict(zip(self.live, live, strict=True))
        return list(values.values())

    def step(
        self,
        params: Values,
        carry: Values,
        take: Take,
        slices: tuple[PyTree, ...],
        outside: Outside,
    ) -> tuple[jax.Array, PyTree, list[jax.Array]]:
        """The step on the cell's params and carry; leaves every state as it was."""

        def call(inputs: tuple[PyTree, ...]) -> PyTree:
            new, out = take(self.core.fitted(one_step(inputs)))
            self.core.write(new)
            return out

        states = [*self.core.module.states, *self.learner._own_states]
        states += [*self.moving.states, *self.fixed.states]
        with lent(states), self.learner._calling(call):
            self.core.module.put_params(params.leaves)
            self.core.module.carry.put([stop(v) for v in carry.leaves])  # the past is the traces'
            self.moving.put(outside.moving)
            self.fixed.put(self._with_live([stop(v) for v in outside.fixed], outside.live))
            loss, aux = split(self.step_fn(*slices), self.has_aux)
            return loss, aux, self._moved(outside.moving)

    def _moved(self, before: list[jax.Array]) -> list[jax.Array]:
        """The values that go on to the next step, which must stay like those before."""
        moved, now = [], self.moving.read().leaves
        for name, a, b in zip(self.moving.leaf_names, map(jnp.asarray, now), before, strict=True):
            if a.shape != b.shape:
                raise UsageError(
                    f"step_fn changes the shape of a state ({name}).",
                    got=a.shape,
                    expected=b.shape,
                    do="write a value of the shape that the state has before the sequence",
                )
            moved.append(stop(a if a.dtype == b.dtype else a.astype(b.dtype)))
        return moved

    def bptt(self, sequences: tuple[PyTree, ...], options: Options) -> list[jax.Array | None]:
        """The gradient by backpropagation through the step and the model themselves."""
        core, outside = self.core, self.outside()
        params, start = core.read()

        def cell(trained: Values, carried: PyTree, slices: PyTree) -> tuple[PyTree, PyTree]:
            (carry, moving), after = carried, []
            now, own = merged(trained, params), Outside(outside.live, moving, outside.fixed)

            def take(x: PyTree) -> tuple[PyTree, PyTree]:
                after[:] = core.function(now, carry, x)
                return after[0], after[1]

            loss, _, moved = self.step(now, carry, take, slices, own)
            return (after[0], moved), loss

        gradients, _ = bptt_gradient(
            cell,
            core.trained(params),
            (start, outside.moving),
            sequences,
            loss_fn=lambda loss: loss,
            mask=options.mask,
            reset=options.reset,
            reduction=options.reduction,
            initial=(core.initial, outside.moving),
            batch_axes=None if options.reset is None else (core.reset_axes, None),
        )
        return gradients.leaves

    # One by one
    # --------------------------------------------------------------------------------------------

    def _one_by_one(self, sequences: tuple[PyTree, ...], options: Options) -> Found:
        """As `gradient`, for a step that calls the learner in a way of its own."""
        own, carried = self.learner._own_states, self.core.module.carry.states
        hidden = [*own, *(s for s in carried if isinstance(s, brainstate.ShortTermState))]
        before = [(s, s.value) for s in (*own, *carried, *self.moving.states)]
        gradients, (losses, aux) = self._compiled(sequences, options.mask, options.reduction)
        undone = [] if options.return_state else hidden
        try:
            check_finite(losses, options.mask)
            layout = self.core.module.params
            named = {id(s): name for s, name in zip(layout.states, layout.names, strict=True)}
            check_results(
                Result("gradient", named.get(k, "a state outside of the model"), leaf)
                for k, tree in gradients.items()
                for leaf in jax.tree.leaves(tree)
            )
        except UsageError:
            undone = [s for s, _ in before]
            raise
        finally:
            for state, value in before:
                if state in undone:
                    state.value = value
        return gradients, Info(losses, aux)

    def _run_one_by_one(
        self, sequences: tuple[PyTree, ...], mask: ArrayLike | None, reduction: str
    ) -> PyTree:
        steps = sequence_length(sequences) * (self.steps or 1)
        weights = weights_of(mask, self._loss_of_one, steps, reduction)
        axes = [self.core.graph.batch_axis(v) for v in self.core.graph.xs]
        read = lambda slices, weight: without_padding(slices, weight, front_axes(slices, axes))
        if self.steps:
            weights, read = in_windows(weights, self.steps), jax.vmap(read)
        has_gradient = lambda v: is_differentiable(jnp.result_type(v))
        live = [s for s in self.wanted if all(map(has_gradient, jax.tree.leaves(s.value)))]

        def one(total: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            slices, weight = at
            if mask is not None:
                slices = read(slices, weight)

            def objective() -> tuple[PyTree, PyTree]:
                loss, aux = split(self.step_fn(*slices), self.has_aux)
                return weigh(loss, weight), (loss, aux)

            found, report = transform.grad(objective, live, has_aux=True)()
            return jax.tree.map(jnp.add, total, found), report

        start = [jax.tree.map(jnp.zeros_like, s.value) for s in live]
        total, (losses, aux) = transform.scan(one, widened(start), (sequences, weights))
        if self.steps:
            losses = one_after_another(losses)
        total = narrowed(total, start)
        nothing = {id(s): jax.tree.map(lambda _: None, s.value) for s in self.wanted}
        return nothing | {id(s): g for s, g in zip(live, total, strict=True)}, (losses, aux)


def _layout(states: list[brainstate.State]) -> Layout:
    """A layout of states that are no part of the model."""
    return Layout.of({f"{type(s).__name__} {k} of step_fn": s for k, s in enumerate(states)})


def by_state(layout: Layout, leaves: Sequence[Any]) -> dict[int, PyTree]:
    """Values of the states by their ids, made of `leaves`."""
    return {id(s): v for s, v in zip(layout.states, layout.values(leaves), strict=True)}
