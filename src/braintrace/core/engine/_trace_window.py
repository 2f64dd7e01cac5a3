"""The gradient over a window of K steps at once: the same values as step by step, with 1/K of the
trace traffic.

With fixed parameters, one reverse pass over the two evaluations of the steps gives, for t = K..1,

    c_t = a_t + D_t^T c_{t+1}          d_t = delta_t + f_t . c_{t+1}          (c_{K+1} = 0)
    G   = (op's weight gradient over the stacked x_t, d_t)  +  contract(c_1, C_0)

d_t is the derivative with respect to a zero perturbation of each site's y, so one matrix product
replaces K outer products and the trace is read once. When no later step needs the trace, it is not
formed.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..analysis import CellGraph, Site
from ..sites import sum_steps
from ..step import Perturbations, Values, calls_back, hidden_part, saving_step, step, with_hidden
from ..traces import (
    StepSignals,
    TraceCarrier,
    cleared_data,
    cleared_drives,
    every_drive,
    pulled_back,
    scan,
    sensitivity,
    timed,
    zero_perturbations,
)
from ._online import advance_through
from ._records import (
    EngineState,
    Gradients,
    Prepared,
    Problem,
    Steps,
    added,
    differentiable_part,
    own_carry,
)
from ._signals import injects

stop = jax.lax.stop_gradient


def trace_window(
    problem: Problem,
    prepared: Prepared,
    state: EngineState,
    steps: Steps,
    total: Gradients,
    keep_trace: bool,
) -> tuple[Gradients, EngineState, PyTree]:
    """For a `TraceCarrier`: (`total` plus the gradient of the differentiable part of the prelude
    and that of `extra`, the new state, the reports of the body and of the carrier).

    Without `keep_trace` the traces of the new state are those before the window.
    """
    problem = problem.bound(prepared)
    graph, carrier = problem.graph, problem.rule.carrier
    assert isinstance(carrier, TraceCarrier)
    merge, live = differentiable_part(graph, prepared.ready)
    evaluate = saving_step if steps.count > 1 else step

    def objective(
        live: list[Array], extra: PyTree, hidden: list[Array], perturbations: Perturbations
    ) -> PyTree:
        def single(carry: list[Array], at: tuple[Perturbations, Steps]) -> PyTree:
            perturbations, now = at
            carry = problem.begin(prepared, carry, now)
            done = problem.body(evaluate, merge(live), extra, carry, perturbations, now.slices)
            return done.step.local, (done.loss, done.report, done.step.data, stop(done.xs))

        start = with_hidden(graph, state.carry, hidden)
        last, (losses, reports, data, xs) = scan(single, start, (perturbations, steps))
        return (losses.sum(), hidden_part(graph, last)), (last, reports, data, xs)

    start = (hidden_part(graph, state.carry), zero_perturbations(graph, steps.count))
    (value, end), pull, (last, reports, data, xs) = jax.vjp(
        objective, live, prepared.extra, *start, has_aux=True
    )
    pulled = pull((jnp.ones_like(value), jax.tree.map(jnp.zeros_like, end)))
    of_live, of_extra = jax.tree.map(jnp.add, total, pulled[:2])
    entry, drives, of_y = pulled[2], pulled[3], data
    if steps.dead is not None:
        drives = cleared_drives(graph, drives, steps.dead)
        of_y = cleared_data(graph, data, steps.dead)
    drives, last = every_drive(graph, drives), [stop(c) for c in last]
    traces, restarted = state.traces, steps.restarted
    if traces is None and keep_trace:
        traces = carrier.init(graph)
    elif traces is not None and restarted is not None:
        traces = carrier.reset(graph, traces, restarted)
    told = carrier.report(graph, traces, StepSignals(entry, drives, of_y))
    reads = carrier.reads_step and state.traces is not None
    together = (keep_trace or reads) and not injects(graph)
    alone = together and steps.count == 1
    later = [alone and carrier.adds_now(graph, site) for site in graph.sites]
    of_live = added(graph, of_live, _own_gradients(graph, prepared.ready, of_y, drives, later))
    before = EngineState(stop(list(own_carry(graph, state.carry))), traces)
    marked, unread = problem.marked_step(prepared), steps.unread
    if together:
        called = any(map(calls_back, graph.step))
        alone_is_less = graph.layers is not None or steps.count == 1
        if graph.positions is not None or (alone_is_less and not called):
            # through the local evaluation alone: there are many reverse passes, or there is one
            # step, whose evaluation is done once
            inputs = [*xs, steps.marks, steps.dead]
            local = sensitivity(graph, stop(prepared.ready), before.carry, inputs, marked, unread)
        else:
            pull_end = lambda end: pull((jnp.zeros_like(value), end))[2:]
            local = pulled_back(graph, end, pull_end, data, last, unread)
        variables = [v for v in graph.prelude_results if v.differentiable]
        sums = dict(zip(variables, of_live, strict=True))
        now = [d[0] for d in drives] if alone else None
        traces, sums = carrier.advance_and_contract(graph, traces, local, (entry, now), sums)
        of_live = [sums[v] for v in variables]
    else:
        if state.traces is not None:
            of_live = added(graph, of_live, carrier.contract(graph, *timed((traces, entry))))
        if keep_trace:
            ready, marks = prepared.ready, dataclasses.replace(steps, slices=None, signals={})
            traces = advance_through(graph, problem.rule, ready, before, xs, marked, marks)
    return (of_live, of_extra), EngineState(last, traces), (reports, told)


def _own_gradients(
    graph: CellGraph, ready: Values, data: list[list[Array]], drives: list[Array], later: list[bool]
) -> list[Array | None]:
    """For each site what its drives stand for, over time, one product for all steps; None for the
    sites that are done `later`.
    """
    env = dict(zip(graph.prelude_results, ready, strict=True))

    def gradient(site: Site, d: list[Array], c: Array) -> Array:
        weight = env[site.weight]
        return site.rule.data_gradient_sum(d, c, weight) if site.is_operation else sum_steps(c)

    every = zip(graph.sites, data, drives, later, strict=True)
    return [None if left else gradient(site, d, c) for site, d, c, left in every]
