"""A user's step function around the learner's call: which states it touches, and the same as a
pure step of the functional learner.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import brainstate
import brainunit
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ...cell import (
    Outside,
    Take,
    Values,
    check_finite,
    check_reset,
    merged,
    plain_user_step,
    sequence_length,
    weigh,
    weights_of,
)
from ...checks import bptt_gradient
from ...core._compat import is_differentiable
from ...core._errors import UsageError
from ...learner import Objective, Options
from ._states import Layout, lent

if TYPE_CHECKING:
    from ._algorithm import ETraceAlgorithm

stop = jax.lax.stop_gradient
transform: Any = brainstate.transform  # its annotations are narrower than what it does

_MOST_KEPT = 32

# gradients by the state's id, losses, aux
Found = tuple[dict[int, PyTree], jax.Array, PyTree]


class StepFunction:
    """One step function of a learner, at the shapes of its slices.

    Attributes:
        calls: how often it calls the learner.
        nested: whether it does so inside a transformation of its own.
        disturbed: model states that change otherwise than by the learner's call.
    """

    def __init__(
        self,
        learner: "ETraceAlgorithm",
        step_fn: Callable[..., PyTree],
        has_aux: bool,
        slices: tuple[PyTree, ...],
        wanted: list[brainstate.State],
    ):
        self.learner, self.core = learner, learner.functional
        self.step_fn, self.has_aux, self.wanted = step_fn, has_aux, wanted
        self.calls, self.nested = 0, False
        self.disturbed: set[str] = set()
        written, read = self._look(slices)
        own = {id(s) for s in self.core.module.states}
        self.outer = _layout([s for s in wanted if id(s) not in own])
        outer = {id(s) for s in self.outer.states}
        self.moving = _layout([s for s in written if id(s) not in outer])
        self.fixed = _layout([s for s in read if id(s) not in outer])
        leaves = self.outer.read().leaves
        self.live = [k for k, v in enumerate(leaves) if is_differentiable(jnp.result_type(v))]
        self._compiled = transform.jit(self._run_one_by_one, static_argnums=2)

    @classmethod
    def of(
        cls,
        learner: "ETraceAlgorithm",
        step_fn: Callable[..., PyTree],
        has_aux: bool,
        sequences: PyTree,
        wanted: list[brainstate.State],
    ) -> "StepFunction":
        """The step at the slices of `sequences`; those used last are kept with the learner."""
        slices = jax.tree.map(
            lambda v: jax.ShapeDtypeStruct(jnp.shape(v)[1:], jnp.result_type(v)), sequences
        )
        avals = tuple((v.shape, v.dtype) for v in jax.tree.leaves(slices))
        key = step_fn, has_aux, jax.tree.structure(slices), avals, tuple(map(id, wanted))
        kept: dict[Hashable, StepFunction] = learner._user_steps
        found = kept.pop(key, None) or cls(learner, step_fn, has_aux, slices, wanted)
        if len(kept) >= _MOST_KEPT:
            del kept[next(iter(kept))]
        kept[key] = found
        return found

    # What the step does
    # --------------------------------------------------------------------------------------------

    def _look(
        self, slices: tuple[PyTree, ...]
    ) -> tuple[list[brainstate.State], list[brainstate.State]]:
        """Trace the step once: the states outside of the learner that it writes, and that it reads.

        A call inside a transformation of the step's own (a `jit`, say) must be the ordinary one:
        the transformation may keep its program, here or from before, and use it again.
        """
        layout, last = self.core.module.carry, []

        def look() -> None:
            now = layout.read().leaves
            named = zip(layout.leaf_names, last, now, strict=True)
            self.disturbed |= {n for n, a, b in named if a is not b}
            last[:] = now

        def run(*slices: PyTree) -> PyTree:
            level = brainstate.util.StateJaxTracer()

            def call(x: tuple[PyTree, ...]) -> PyTree:
                self.calls += 1
                if not level.is_valid():
                    self.nested = True
                    return self.learner._online(x)
                look()
                out = self.core.forward(x)
                last[:] = layout.read().leaves
                return out

            last[:] = layout.read().leaves
            with self.learner._calling(call):
                result = self.step_fn(*slices)
            if not self.nested:
                look()
            return jax.tree.map(jnp.asarray, result)

        own = self.learner._own_states
        known, mine = {id(s) for s in [*self.core.module.states, *own]}, {id(s) for s in own}
        written, read = [], []
        with lent([*self.core.module.states, *own]) as trace:
            self.result = jax.eval_shape(run, *slices)
            for state, wrote in zip(trace.states, trace.been_writen, strict=True):
                if id(state) in mine and wrote:  # by a program that a transformation has kept
                    self.nested, self.calls = True, max(self.calls, 1)
                if id(state) not in known:
                    (written if wrote else read).append(state)
        if self.calls == 0:
            raise UsageError(
                "step_fn does not call the learner.",
                expected="a function that calls learner(x) and returns the loss of a step",
                do="call the learner in it, not the model",
            )
        return written, read

    @property
    def windowed(self) -> bool:
        """Whether steps can be taken together."""
        return self.calls == 1 and not self.nested and not self.disturbed

    @property
    def obstacle(self) -> str | list[str]:
        """Why they cannot."""
        if self.calls != 1:
            return f"{self.calls} calls"
        return sorted(self.disturbed) or "a call inside a transformation"

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
        _split_loss(self.result, self.has_aux)
        if self.windowed:
            return
        if options.reset is not None:
            raise UsageError(
                "With reset, step_fn calls the learner once, and not inside a transformation of "
                "its own.",
                got=self.obstacle,
                expected="one call",
                do="call the learner directly, give step_fn a RandomState of its own, or reset "
                "between calls of etrace_grad",
            )
        if options.y_target is not None:
            raise UsageError(
                "With y_target, step_fn calls the learner once and leaves the model's states to "
                "it.",
                do="call learner(x) once, directly in step_fn",
            )

    # Steps together
    # --------------------------------------------------------------------------------------------

    def gradient(self, sequences: tuple[PyTree, ...], options: Options) -> Found:
        """The gradient of a sequence. States are written when it has succeeded."""
        if not self.windowed:
            return self._one_by_one(sequences, options)
        params, state = self.learner._now(known_zero=True)
        objective = Objective(None, self.step_fn, self.has_aux, self._adapted)
        (of_model, of_outer), new, info, moved = self.core.sequence_gradient(
            params, state, sequences, objective, options, self.outside()
        )
        self.moving.write(moved)
        self.learner._move(new, hidden=options.return_state)
        found = _by_state(self.core.module.params, of_model)
        return found | _by_state(self.outer, self._outer_leaves(of_outer)), info.losses, info.aux

    def outside(self) -> Outside:
        """The present values outside of the model."""
        leaves = self.outer.read().leaves
        moving = [jnp.asarray(v) for v in self.moving.read().leaves]
        return Outside([leaves[k] for k in self.live], moving, [leaves, self.fixed.read().leaves])

    def _outer_leaves(
        self, live: list[jax.Array], others: list[jax.Array] | None = None
    ) -> list[jax.Array | None]:
        leaves: list[jax.Array | None] = [None] * len(self.outer.leaf_names)
        if others is not None:
            leaves[:] = map(stop, others)
        for k, v in zip(self.live, live, strict=True):
            leaves[k] = v
        return leaves

    def _adapted(self, step_fn: Callable[..., PyTree], has_aux: bool) -> Callable[..., PyTree]:
        return self.step

    def step(
        self,
        params: Values,
        carry: Values,
        take: Take,
        slices: tuple[PyTree, ...],
        outside: Outside,
    ) -> tuple[jax.Array, PyTree, list[jax.Array]]:
        """The step on the cell's params and carry; leaves every state as it was."""

        def call(x: tuple[PyTree, ...]) -> PyTree:
            new, out = take(self.core.fitted(x))
            self.core.write(new)
            return out

        others, fixed = outside.fixed
        states = [*self.core.module.states, *self.learner._own_states]
        states += [*self.outer.states, *self.moving.states, *self.fixed.states]
        with lent(states), self.learner._calling(call):
            self.core.module.put_params(params.leaves)
            self.core.module.carry.put([stop(v) for v in carry.leaves])  # the past is the traces'
            self.outer.put(self._outer_leaves(outside.live, others))
            self.moving.put(outside.moving)
            self.fixed.put([stop(v) for v in fixed])
            loss, aux = _split_loss(self.step_fn(*slices), self.has_aux)
            return loss, aux, self._moved(outside.moving)

    def _moved(self, before: list[jax.Array]) -> list[jax.Array]:
        """The values that go on to the next step, which must stay like those before."""
        now = [jnp.asarray(v) for v in self.moving.read().leaves]
        for name, a, b in zip(self.moving.leaf_names, now, before, strict=True):
            if a.shape != b.shape:
                raise UsageError(
                    f"step_fn changes the shape of a state ({name}).",
                    got=a.shape,
                    expected=b.shape,
                    do="write a value of the shape that the state has before the sequence",
                )
        pairs = zip(now, before, strict=True)
        return [stop(a if a.dtype == b.dtype else a.astype(b.dtype)) for a, b in pairs]

    def bptt(self, sequences: tuple[PyTree, ...], options: Options) -> dict[int, PyTree]:
        """The gradient by backpropagation through the step and the model themselves."""
        core, outside, reset = self.core, self.outside(), options.reset
        steps = sequence_length(sequences)
        marks = None if reset is None else check_reset(reset, steps, core.graph.batch_size)
        params, carry = core.read()

        def cell(trained: Values, carried: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            (carry, moving), (slices, mark) = carried, at
            carry = carry if mark is None else core.restarted(carry, mark)
            own, moved = Outside(outside.live, moving, outside.fixed), []

            def step(params: Values, carry: Values, take: Take, slices: PyTree, _: Outside) -> Any:
                loss, aux, moved[:] = self.step(params, carry, take, slices, own)
                return loss, aux, None

            take_step = plain_user_step(core.function, step)
            new, loss = take_step(merged(trained, params), carry, slices)
            return (new, moved), loss

        gradients, _ = bptt_gradient(
            cell,
            core.trained(params),
            (carry, outside.moving),
            (sequences, marks),
            loss_fn=lambda loss: loss,
            mask=options.mask,
            reduction=options.reduction,
        )
        leaves = iter(jax.tree.leaves(gradients))
        count = len(core.module.params.leaf_names)
        live = [next(leaves) if with_gradient else None for with_gradient in core._live[:count]]
        return _by_state(core.module.params, live)

    # One by one
    # --------------------------------------------------------------------------------------------

    def _one_by_one(self, sequences: tuple[PyTree, ...], options: Options) -> Found:
        """As `gradient`, for a step that calls the learner in a way of its own."""
        own, carried = self.learner._own_states, self.core.module.carry.states
        hidden = [*own, *(s for s in carried if isinstance(s, brainstate.ShortTermState))]
        everything = [*own, *carried, *self.moving.states]
        before = {id(s): s.value for s in everything}

        def put_back(states: list[brainstate.State]) -> None:
            for state in states:
                state.value = before[id(state)]

        gradients, (losses, aux) = self._compiled(sequences, options.mask, options.reduction)
        try:
            check_finite(losses, options.mask)
        except UsageError:
            put_back(everything)
            raise
        if not options.return_state:
            put_back(hidden)
        return gradients, losses, aux

    def _run_one_by_one(
        self, sequences: tuple[PyTree, ...], mask: ArrayLike | None, reduction: str
    ) -> PyTree:
        loss, _ = _split_loss(self.result, self.has_aux)
        weights = weights_of(mask, loss, sequence_length(sequences), reduction)
        has_gradient = lambda v: is_differentiable(jnp.result_type(v))
        live = [s for s in self.wanted if all(map(has_gradient, jax.tree.leaves(s.value)))]

        def one(total: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            slices, weight = at

            def objective() -> tuple[PyTree, PyTree]:
                loss, aux = _split_loss(self.step_fn(*slices), self.has_aux)
                return weigh(loss, weight), (loss, aux)

            found, report = transform.grad(objective, live, has_aux=True)()
            return jax.tree.map(jnp.add, total, found), report

        start = [jax.tree.map(jnp.zeros_like, s.value) for s in live]
        total, reports = transform.scan(one, start, (sequences, weights))
        nothing = {id(s): jax.tree.map(lambda _: None, s.value) for s in self.wanted}
        return nothing | {id(s): g for s, g in zip(live, total, strict=True)}, reports


def _layout(states: list[brainstate.State]) -> Layout:
    """A layout of states that are no part of the model."""
    return Layout.of({f"{type(s).__name__} {k} of step_fn": s for k, s in enumerate(states)})


def _by_state(layout: Layout, leaves: Sequence[jax.Array | None]) -> dict[int, PyTree]:
    return {id(s): v for s, v in zip(layout.states, layout.values(leaves), strict=True)}


def _split_loss(result: PyTree, has_aux: bool) -> tuple[PyTree, PyTree]:
    """(loss, aux) of what a step returned."""
    if has_aux and not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise UsageError(
            "With has_aux, step_fn returns a pair.",
            got=type(result).__name__,
            expected="(loss, aux)",
            do="return the loss and a tree of arrays, or leave has_aux out",
        )
    loss, aux = result if has_aux else (result, None)
    if isinstance(loss, brainunit.Quantity):
        raise UsageError(
            "The loss has a unit.",
            got=str(loss.unit),
            expected="a plain number",
            do="divide by a scale, as in jnp.square((out / brainunit.mV))",
        )
    shape, dtype = getattr(loss, "shape", None), getattr(loss, "dtype", None)
    if shape is None or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise UsageError(
            "step_fn does not return a loss.",
            got=type(loss).__name__ if shape is None else f"{dtype}{list(shape)}",
            expected="a floating-point scalar, or one value per sample",
            do="return the loss of the step"
            + ("" if has_aux else "; pass has_aux=True to return (loss, aux)"),
        )
    return loss, aux
