"""One compiled gradient over a sequence: the steps of a window together, or, where a step function
asks for it, one by one.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ...cell import Values, shielded, weigh, weights_of
from ...core._compat import is_differentiable
from ...core._errors import UsageError, problem
from ...core.engine import (
    Body,
    EngineState,
    Problem,
    Stepped,
    Steps,
    driver_signals,
    sequence_gradient,
)
from ...core.step import free_step
from ._probe import Probe, split_loss
from ._states import Layout, lent

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Task:
    """The static part of a call."""

    step_fn: Callable[..., Any]
    has_aux: bool
    reduction: str
    window: int | None
    return_state: bool
    resets: bool
    wanted: tuple[int, ...]
    free: bool = False  # every path live: over one window, BPTT


class Plan:
    """How a task is done.

    `extra` are the parameters as the step function may read them outside of the learner: the
    model's, then any others that are wanted. `more` are states that it writes and that are no part
    of the model; `fixed` those that it only reads.
    """

    def __init__(
        self,
        driver: Any,
        task: Task,
        found: Probe,
        loss: jax.ShapeDtypeStruct,
        wanted: list[brainstate.State],
    ):
        self.driver, self.task, self.found, self.loss = driver, task, found, loss
        functional = driver.compiled.functional
        own = {id(s) for s in functional.states}
        params = dict(zip(functional.params.names, functional.params.states, strict=True))
        params |= _named([s for s in wanted if id(s) not in own])
        self.extra = Layout.of(params)
        known = {id(s) for s in self.extra.states}
        self.more = Layout.of(_named([s for s in found.written if id(s) not in known]))
        self.fixed = Layout.of(_named([s for s in found.read if id(s) not in known]))
        live = self.extra.read().leaves
        self.live = [k for k, v in enumerate(live) if is_differentiable(jnp.result_type(v))]
        chosen = {id(s) for s in wanted}
        self.wanted_leaves = [
            k for k, s in enumerate(self.extra.leaf_states()) if k in self.live and id(s) in chosen
        ]
        if found.calls != 1 and task.resets:
            raise UsageError(
                problem(
                    "With reset, step_fn calls the learner once.",
                    got=f"{found.calls} calls",
                    expected="one call",
                    do="make each call a step of the sequence, or reset between calls of etrace_grad",
                )
            )
        if not found.windowed and task.resets:
            raise UsageError(
                problem(
                    "With reset, step_fn calls the learner once, and not inside a transformation of its own.",
                    got=sorted(found.disturbed) or "a call inside a transformation",
                    do="give step_fn a RandomState of its own, and call the learner directly",
                )
            )
        self.compute = jax.jit(
            self._windowed if found.windowed else self._one_by_one, static_argnums=0
        )

    def total(self, losses: Any, mask: Any, steps: int) -> Any:
        """The reduced loss."""
        return weigh(losses, weights_of(mask, self.loss, steps, self.task.reduction))

    def _loss(self, slices: Any) -> tuple[Any, Any]:
        return split_loss(self.task.step_fn(*slices), self.task.has_aux)

    def _put(self, live: list[Any], extra: list[Any], fixed: list[Any], params: list[Any]) -> None:
        """Give the states that a step only reads their values."""
        values = [stop(v) for v in extra]
        for k, v in zip(self.live, live, strict=True):
            values[k] = v
        functional = self.driver.compiled.functional
        functional.put_params(params)
        self.extra.put(values)
        self.fixed.put([stop(v) for v in fixed])

    @property
    def _states(self) -> list[brainstate.State]:
        own = [*self.driver.compiled.functional.states, *self.driver.own_states]
        return [
            *own,
            *self.extra.states[len(self.driver.compiled.functional.params.states) :],
            *self.more.states,
            *self.fixed.states,
        ]

    def _more_now(self, before: list[Any]) -> list[Any]:
        """The present values of `more`, which must stay like those before."""
        now = self.more.read().leaves
        for name, a, b in zip(self.more.leaf_names, now, before, strict=True):
            if jnp.shape(a) != jnp.shape(b):
                raise UsageError(
                    problem(
                        f"step_fn changes the shape of a state ({name}).",
                        got=jnp.shape(a),
                        expected=jnp.shape(b),
                        do="write a value of the shape that the state has before the sequence",
                    )
                )
        return [
            stop(a if a.dtype == b.dtype else jnp.asarray(a, b.dtype))
            for a, b in zip(map(_array, now), before, strict=True)
        ]

    # A window at a time
    # --------------------------------------------------------------------------------------------

    def _windowed(
        self,
        window: int,
        params: list[Any],
        carry: list[Any],
        traces: Any,
        extra: list[Any],
        more: list[Any],
        fixed: list[Any],
        initial: list[Any],
        sequences: Any,
        marks: Any,
        mask: Any,
        index: Any,
        y_target: Any,
    ) -> Any:
        driver, task = self.driver, self.task
        cell = driver.compiled.cell
        count, own = len(cell.graph.carry), len(carry)
        steps = jax.tree.leaves(sequences)[0].shape[0]
        weights = weights_of(mask, self.loss, steps, task.reduction)

        def body(
            evaluate: Any, ready: Any, live: Any, carry: list[Any], nudges: Any, at: Any
        ) -> Stepped:
            slices, weight = at
            done: list[Any] = []

            def call(x: tuple[Any, ...]) -> Any:
                xs = driver.compiled.inputs(x)
                mine = carry[:count]
                result = (
                    free_step(cell.graph, ready, mine, xs)
                    if task.free
                    else evaluate(cell.graph, ready, mine, xs, nudges)
                )
                done.append((result, xs))
                driver.compiled.write(result.carry)
                return cell.out.unflatten(shielded(result.outs, weight, mask))

            with lent(self._states), driver.activate(call):
                self._put(live, extra, fixed, params)
                driver.compiled.functional.carry.put(
                    cell.tree_carry([stop(v) for v in carry[:count]]).leaves
                )
                self.more.put(carry[count:])
                loss, aux = self._loss(slices)
                later = self._more_now(carry[count:])
            [(result, xs)] = done
            result = dataclasses.replace(result, local=[*result.local, *later])
            return Stepped(result, xs, weigh(loss, weight), (loss, aux))

        checked: Body = body
        rule = driver.compiled.rule
        state = EngineState.of(cell.graph, [*carry, *map(_array, more)], traces)
        signals = driver_signals(cell.graph, weights, y_target, rule.target_timing)
        (of_params, of_extra), state, (losses, aux) = sequence_gradient(
            Problem(cell.graph, rule, checked, driver.compiled.resettable() if task.resets else ()),
            params,
            [extra[k] for k in self.live],
            state,
            Steps((sequences, weights), signals, marks),
            window=window,
            keep_trace=task.return_state,
            initial=cell.flat_carry(Values(driver.compiled.initial.names, initial))
            if task.resets
            else (),
        )
        carry, traces = state.parts(cell.graph)
        outside = dict(zip(self.live, of_extra, strict=True))
        model = len(driver.compiled.functional.params.leaf_names)
        gradients = [
            outside[k] + of_params[k] if k < model else outside[k] for k in self.wanted_leaves
        ]
        return gradients, carry[:own], traces, carry[own:], losses, aux

    # One by one
    # ----------------------------------------------------------------------------------------------------

    def _one_by_one(
        self,
        window: int,
        params: list[Any],
        carry: list[Any],
        traces: Any,
        extra: list[Any],
        more: list[Any],
        fixed: list[Any],
        initial: list[Any],
        sequences: Any,
        marks: Any,
        mask: Any,
        index: Any,
        y_target: Any,
    ) -> Any:
        driver, task = self.driver, self.task
        learner, compiled = driver.learner, driver.compiled
        steps = jax.tree.leaves(sequences)[0].shape[0]
        weights = weights_of(mask, self.loss, steps, task.reduction)
        zero = compiled.rule.init(compiled.cell.graph)

        def one(state: Any, at: Any) -> tuple[Any, Any]:
            (carry, traces, more, index), total = state
            slices, weight = at

            def objective(live: list[Any]) -> tuple[Any, Any]:
                with lent(self._states), driver.activate(None):
                    self._put(live, extra, fixed, params)
                    compiled.functional.carry.put(compiled.cell.tree_carry(carry).leaves)
                    learner.etrace.restore_value(traces)
                    learner.running_index.restore_value(index)
                    self.more.put(more)
                    loss, aux = self._loss(slices)
                    new = (
                        stop((compiled.carry(), learner.etrace.value)),
                        self._more_now(more),
                        learner.running_index.value,
                    )
                return weigh(loss, weight), (new, (loss, aux))

            gradients, (((carry, traces), more, index), report) = jax.grad(objective, has_aux=True)(
                live_now
            )
            return ((carry, traces, more, index), jax.tree.map(jnp.add, total, gradients)), report

        live_now = [extra[k] for k in self.live]
        start = (carry, zero if traces is None else traces, list(map(_array, more)), index)
        total = jax.tree.map(jnp.zeros_like, live_now)
        ((carry, traces, more, _), total), (losses, aux) = jax.lax.scan(
            one, (start, total), (sequences, weights)
        )
        gradients = dict(zip(self.live, total, strict=True))
        return [gradients[k] for k in self.wanted_leaves], carry, traces, more, losses, aux


def _named(states: list[brainstate.State]) -> dict[str, brainstate.State]:
    return {f"{type(s).__name__} {k} of step_fn": s for k, s in enumerate(states)}


def _array(value: Any) -> Any:
    return value if isinstance(value, jax.Array) else jnp.asarray(value)
