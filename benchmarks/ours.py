"""BPTT and this project's algorithms as programs."""

from typing import Any

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from braintrace._compare import algorithms

from . import layer
from .network import Network, functional, joined
from .work import Case, Program, data_of, loss, model_of, size_of


def program(case: Case, rule: str, steps: int, form: str) -> Program:
    """The gradient of `steps` steps.

    `rule` is 'bptt' or an algorithm as `python -m braintrace compare` names it. `form` is 'window'
    (the default window), 'online' (window=1), 'no end trace' (one window, zero traces that are
    never read, none formed at the end), 'within BPTT' (the window of a `memory_budget` of nine
    tenths of what the plan says of BPTT), 'step' (one update under `jit`), 'eager step' (the same
    without), both also with ' in place' (the learner's `value_and_grad`), 'window 1' (multi-step
    VJP over windows of one step), or 'module', 'module step' and
    'module eager step': the default window and a single update through the brainstate front end.
    """
    if case.cell == "layer":
        return layer.program(case, rule, steps, form)
    model, (xs, ys) = model_of(case), data_of(case, steps)
    if form.startswith("module"):
        return _module(case, rule, xs, ys, form)
    if rule == "bptt":
        return Program(_bptt(model), model.params, model.carry, xs, ys)
    given = {"params": model.params, "carry": model.carry, **algorithms(model)[rule].options}
    learner = braintrace.compile(model.cell, rule.split()[0], xs[0], **given)
    if form == "within BPTT":
        given["memory_budget"] = int(0.9 * learner.memory_plan(steps).bptt)
        learner = braintrace.compile(model.cell, rule.split()[0], xs[0], **given)
    if "step" in form:
        state = learner.init(model.params, model.carry)
        jitted = not form.startswith("eager")
        step = _step_in_place(learner, not jitted) if "in place" in form else _step(learner)
        traces = size_of(state.traces)
        return Program(step, model.params, state, xs[0], ys[0], traces, compiled=jitted)
    if form == "window 1":
        state = learner.init(model.params, model.carry)
        return Program(_full_windows(learner), model.params, state, xs, ys, size_of(state.traces))
    targets = (lambda ys: {"y_target": ys}) if rule == "osttp" else (lambda ys: {})
    if form == "no end trace":
        start = learner.init(model.params, model.carry, traces=False)

        def without(fixed: Any, state: Any, xs: Any, ys: Any) -> Any:
            options = {
                "loss_fn": loss,
                "reduction": "sum",
                "window": steps,
                "return_state": False,
                **targets(ys),
            }
            return learner.etrace_grad(fixed[0], fixed[1], xs, ys, **options)[0], state

        return Program(without, (model.params, start), (), xs, ys)
    window = {"window": None, "within BPTT": None, "online": 1}[form]

    def gradient(params: Any, state: Any, xs: Any, ys: Any) -> Any:
        options = {"loss_fn": loss, "reduction": "sum", "window": window, **targets(ys)}
        return learner.etrace_grad(params, state, xs, ys, **options)[:2]

    state = learner.init(model.params, model.carry)
    return Program(gradient, model.params, state, xs, ys, size_of(state.traces))


def _bptt(model: Any) -> Any:
    """`jax.grad` of a scan over the very same cell."""

    def total(params: Any, carry: Any, xs: Any, ys: Any) -> Any:
        def one(carry: Any, at: Any) -> Any:
            carry, out = model.cell(params, carry, at[0])
            return carry, loss(out, at[1])

        carry, losses = jax.lax.scan(one, carry, (xs, ys))
        return losses.sum(), carry

    return jax.grad(total, has_aux=True)


def _step(learner: Any) -> Any:
    """The gradient of one step's loss, and the state after it."""

    def one(params: Any, state: Any, x: Any, y: Any) -> Any:
        state, out = learner.update(params, state, x)
        return loss(out, y), state

    return jax.grad(one, has_aux=True)


def _step_in_place(learner: Any, donate: bool) -> Any:
    """The same by the learner itself."""

    def one(params: Any, state: Any, x: Any, y: Any) -> Any:
        return learner.value_and_grad(params, state, x, y, loss_fn=loss, donate=donate)[1:]

    return one


def _module(case: Case, rule: str, xs: Any, ys: Any, form: str) -> Program:
    """The same cell as a brainstate module."""
    network = Network(case, lambda parts: parts[0], split=False)
    options = algorithms(network.source)[rule].options
    learner = braintrace.compile(
        network, rule.split()[0], xs[0], batch_size=case.samples, **options
    )
    weights = network.states(brainstate.ParamState)

    def step_loss(x: Any, y: Any) -> Any:
        return loss(learner(x), y)

    def sequence(xs: Any, ys: Any) -> Any:
        return learner.etrace_grad(xs, ys, step_fn=step_loss, reduction="sum")

    def one(x: Any, y: Any) -> Any:
        return brainstate.transform.grad(lambda: step_loss(x, y), weights)()

    traces = size_of(learner.etrace.value)
    if form == "module eager step":
        return Program(
            lambda fixed, state, x, y: (one(x, y), state),
            (),
            (),
            xs[0],
            ys[0],
            traces,
            joined,
            compiled=False,
        )
    xs, ys = (xs[0], ys[0]) if form == "module step" else (xs, ys)
    function, states = functional(one if form == "module step" else sequence, xs, ys)
    return Program(function, (), [s.value for s in states], xs, ys, traces, joined)


def _full_windows(learner: Any) -> Any:
    """The sum of the gradients of windows of one step, each with BPTT inside it: what the peer
    calls multi-step.
    """

    def gradient(params: Any, state: Any, xs: Any, ys: Any) -> Any:
        def one(params: Any, state: Any, x: Any, y: Any) -> Any:
            state, out = learner.update_window(params, state, x[None], full=True)
            return loss(out[0], y), state

        def advance(held: Any, at: Any) -> Any:
            total, state = held
            new, state = jax.grad(one, has_aux=True)(params, state, *at)
            return (jax.tree.map(jnp.add, total, new), state), None

        return jax.lax.scan(advance, (jax.tree.map(jnp.zeros_like, params), state), (xs, ys))[0]

    return gradient


def warm_up() -> None:
    """Load what the first program of a process would have to wait for."""
    tiny = program(Case("rnn", 2, 2), "d_rtrl", 2, "window")
    jax.block_until_ready(jax.jit(tiny.function)(tiny.fixed, tiny.state, tiny.xs, tiny.ys))
    jnp.zeros(1).block_until_ready()
