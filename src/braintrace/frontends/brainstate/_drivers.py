"""Gradients over sequences, with the user's own step function."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ...cell import check_driver, check_finite, check_reset, sequence_length, weights_of
from ...core._errors import UsageError, problem
from ...learner import Budget
from ._compiled import Compiled
from ._plan import Plan, Task
from ._probe import forward, hidden_states_untouched, probe, split_loss
from ._states import Layout, lent

_MOST_PLANS = 32


class Driver:
    """Runs a learner over sequences. While `active` is set, the learner's calls go to it."""

    def __init__(self, learner: Any, compiled: Compiled, budget: Budget):
        self.learner, self.compiled, self.budget = learner, compiled, budget
        self.active: Callable[[tuple[Any, ...]], Any] | None = None
        self._plans: dict[Any, Plan] = {}
        self._forward: dict[Any, Any] = {}

    @contextlib.contextmanager
    def activate(self, call: Callable[[tuple[Any, ...]], Any] | None) -> Iterator[None]:
        """Inside, the learner's calls go to `call`."""
        before, self.active = self.active, call
        try:
            yield
        finally:
            self.active = before

    def online(self, x: tuple[Any, ...]) -> Any:
        """The learner's ordinary call."""
        with self.activate(None):
            return self.learner(*x)

    @property
    def own_states(self) -> list[brainstate.State]:
        """The learner's states beside the model's."""
        return [self.learner.etrace, self.learner.running_index]

    # Gradients
    # ----------------------------------------------------------------------------------------------

    def gradient(
        self,
        sequences: tuple[Any, ...],
        step_fn: Callable[..., Any],
        *,
        mask: Any,
        reset: Any,
        window: int | None,
        weights: Any,
        reduction: str,
        loss_output: str,
        has_aux: bool,
        return_value: bool,
        return_state: bool,
        y_target: Any,
        free: bool = False,
    ) -> Any:
        """See `ETraceAlgorithm.etrace_grad`. With `free`, every path is live: over one window the
        gradient is BPTT's.
        """
        steps = self._check(sequences, step_fn)
        check_driver(steps, (), reduction, window)
        loss_output = {"per_step": "step", "scalar": "total"}.get(loss_output, loss_output)
        if loss_output not in ("step", "total"):
            raise UsageError(
                problem(
                    "Unknown loss_output.",
                    got=repr(loss_output),
                    expected="'step' or 'total' ('per_step' and 'scalar' are the same)",
                )
            )
        wanted = self._wanted(weights)
        marks = None if reset is None else check_reset(reset, steps, self.compiled.lanes)
        task = Task(
            step_fn,
            has_aux,
            reduction,
            window,
            return_state,
            marks is not None,
            tuple(map(id, wanted[0])),
            free,
        )
        plan = self._plan(task, sequences, steps, wanted[0])
        gradients, losses, aux = self._run(plan, sequences, steps, marks, mask, y_target)
        found = [gradients[id(s)] for s in wanted[0]]
        result = [wanted[1](found)]
        if return_value:
            result.append(losses if loss_output == "step" else plan.total(losses, mask, steps))
        if has_aux:
            result.append(aux)
        return result[0] if len(result) == 1 else tuple(result)

    def _plan(self, task: Task, sequences: Any, steps: int, wanted: list[brainstate.State]) -> Plan:
        key = (task, jax.tree.structure(sequences), tuple(map(_aval, jax.tree.leaves(sequences))))
        if key not in self._plans:
            slices = jax.tree.map(
                lambda v: jax.ShapeDtypeStruct(jnp.shape(v)[1:], jnp.result_type(v)), sequences
            )
            found = probe(
                self.compiled, self.activate, self.online, task.step_fn, slices, self.own_states
            )
            hidden_states_untouched(self.compiled, found)
            loss, _ = split_loss(found.result, task.has_aux)
            if len(self._plans) >= _MOST_PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[key] = Plan(self, task, found, loss, wanted)
        return self._plans[key]

    def _run(
        self, plan: Plan, sequences: Any, steps: int, marks: Any, mask: Any, y_target: Any
    ) -> Any:
        learner, compiled, task = self.learner, self.compiled, plan.task
        if y_target is not None and not plan.found.windowed:
            raise UsageError(
                problem(
                    "With y_target, step_fn calls the learner once and leaves the model's states "
                    "to it.",
                    do="call learner(x) once, directly in step_fn",
                )
            )
        weights_of(mask, plan.loss, steps, task.reduction)  # its errors, before anything runs
        traces = None if task.free or learner.known_zero else learner.etrace.value
        size = self.budget.window(steps, task.window, task.return_state)
        more, fixed = plan.more.read().leaves, plan.fixed.read().leaves
        result = plan.compute(
            size,
            compiled.params(),
            compiled.carry(),
            traces,
            plan.extra.read().leaves,
            more,
            fixed,
            compiled.initial.leaves if marks is not None else [],
            sequences,
            marks,
            mask,
            learner.running_index.value,
            y_target,
        )
        gradients, carry, traces, more, losses, aux = result
        check_finite(losses, mask)
        plan.more.write(more)
        if task.return_state:
            learner._move(carry, traces, steps)
        else:
            self._write_lasting(carry)
        layout = plan.extra
        leaves = dict(zip(plan.wanted_leaves, gradients, strict=True))
        values = layout.values([leaves.get(k) for k in range(len(layout.leaf_names))])
        return {id(s): v for s, v in zip(layout.states, values, strict=True)}, losses, aux

    def _write_lasting(self, carry: list[Any]) -> None:
        """Keys and statistics move on; hidden states stay."""
        layout = self.compiled.functional.carry
        for state, value in zip(
            layout.states, layout.values(self.compiled.cell.tree_carry(carry).leaves), strict=True
        ):
            if not isinstance(state, brainstate.ShortTermState):
                state.value = value

    def _wanted(self, weights: Any) -> tuple[list[brainstate.State], Callable[[list[Any]], Any]]:
        """The states to differentiate, and how their gradients are put together."""
        if weights is None:
            trained = self.compiled.trained_states()
            weights = {
                k: s
                for k, s in self.learner.model.states(brainstate.ParamState).items()
                if id(s) in trained
            }
        if isinstance(weights, dict):
            keys = list(weights)
            return [self._state_of(w) for w in weights.values()], lambda g: dict(
                zip(keys, g, strict=True)
            )
        if isinstance(weights, (list, tuple)):
            kind = type(weights)
            return [self._state_of(w) for w in weights], lambda g: kind(g)
        return [self._state_of(weights)], lambda g: g[0]

    def _state_of(self, weight: Any) -> brainstate.State:
        if isinstance(weight, brainstate.State):
            return weight
        layout = self.compiled.functional.params
        return layout.states[layout.names.index(self.learner._name_of(weight))]

    def _check(self, sequences: tuple[Any, ...], step_fn: Any) -> int:
        if not sequences:
            raise UsageError(
                problem(
                    "No sequence.",
                    expected="arrays with time on axis 0",
                    do="etrace_grad(xs, ys, step_fn=f)",
                )
            )
        if not callable(step_fn):
            raise UsageError(
                problem(
                    "step_fn is not a function.",
                    got=type(step_fn).__name__,
                    expected="a function of one slice of each sequence",
                )
            )
        if self.active is not None:
            raise UsageError(
                problem(
                    "A sequence driver is called inside a step function.",
                    do="call learner(x) there",
                )
            )
        return sequence_length(sequences)

    # Forward only
    # ----------------------------------------------------------------------------------------------

    def evolve(
        self,
        sequences: tuple[Any, ...],
        return_outputs: bool,
        step_fn: Callable[..., Any] | None,
        traces: bool,
        window: int | None,
    ) -> Any:
        """See `SequenceDriverMixin.etrace_evolve`."""
        steps = self._check(sequences, step_fn or forward)
        check_driver(steps, (), "mean", window)
        compiled = self.compiled
        if step_fn is None:
            args = (compiled.params(), compiled.carry())
            leaves = compiled.inputs(sequences, (steps,))
            moved = None
            if traces:
                size = self.budget.window(steps, window, True)
                carry, moved, outs = compiled.advance(
                    size, *args, self.learner.etrace.value, leaves
                )
            else:
                carry, outs = compiled.evolve(*args, leaves)
            self.learner._move(carry, moved, steps)
            return compiled.cell.out.unflatten(outs) if return_outputs else None
        slices = jax.tree.map(
            lambda v: jax.ShapeDtypeStruct(jnp.shape(v)[1:], jnp.result_type(v)), sequences
        )
        found = probe(compiled, self.activate, self.online, step_fn, slices, self.own_states)
        own = self.own_states if traces else []
        moving = Layout.of(
            {
                str(k): s
                for k, s in enumerate([*compiled.functional.carry.states, *found.written, *own])
            }
        )
        fixed = [
            *compiled.functional.params.states,
            *compiled.functional.constants.states,
            *found.read,
        ]

        def one(values: list[Any], slices: Any) -> tuple[list[Any], Any]:
            with lent([*moving.states, *fixed, *self.own_states]):
                moving.put(values)
                with self.activate(
                    self.online if traces or found.nested else lambda x: forward(compiled, x)
                ):
                    out = step_fn(*slices)
                return moving.read().leaves, out

        values, outs = jax.lax.scan(one, moving.read().leaves, sequences)
        moving.write(values)
        if not traces:
            self.learner._move(None, None, steps * found.calls)
        return outs if return_outputs else None


def _aval(value: Any) -> tuple[Any, ...]:
    return jnp.shape(value), str(jnp.result_type(value))


def named(states: Sequence[brainstate.State]) -> Layout:
    """A layout of states that are no part of the model."""
    return Layout.of({f"{type(s).__name__} {k} of step_fn": s for k, s in enumerate(states)})
