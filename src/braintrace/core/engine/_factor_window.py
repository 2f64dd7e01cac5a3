"""A window for traces whose gradient is made of factors: the derivatives of its steps, then the
traces, then one weight product for each site.

    1  forward: the carry before each step, and the results of products on the way
    2  of each step alone: entry a_t, drive delta_t, D_t and f_t
    3  the traces, step by step, and the factors (x_t, c_t)                      (elementwise)
    4  one weight product for each site

A step's signals are those of its own loss, so step 2 has no order in time: it is done for all
steps at once where they are small. Else steps 1 to 3 are done step by step: a wide step is faster
in cache than a window's arrays are through memory, and some operations cannot be mapped.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from .._compat import can_be_mapped
from ..analysis import CellGraph
from ..step import Step, feeds_back_at_a_cost, keeping_step, step, worth_keeping
from ..traces import FactorCarrier, Sensitivity, every_drive, pulled_back, scan, zero_nudges
from ._records import (
    EngineState,
    Gradients,
    Prepared,
    Problem,
    Steps,
    added,
    differentiable_part,
    hidden_part,
    injects,
    with_hidden,
)

stop = jax.lax.stop_gradient

_WIDEST = 4096  # elements of the state traces of a site, up to which steps are mapped


def factor_window(
    problem: Problem, prepared: Prepared, state: EngineState, steps: Steps, total: Gradients
) -> tuple[Gradients, EngineState, Any]:
    """As `trace_window`, for a `FactorCarrier`."""
    problem = problem.bound(prepared)
    graph, carrier = problem.graph, problem.rule.carrier
    assert isinstance(carrier, FactorCarrier)
    traces = carrier.init(graph) if state.traces is None else state.traces
    carry = stop(list(state.carry))

    def follow(traces: Any, seen: Any, marks: Any) -> tuple[Any, list[Any]]:
        """The traces after a step, and its factors."""
        local, entry, drives = seen
        before = traces if marks is None else carrier.reset(graph, traces, marks)
        after = carrier.advance(graph, before, local)
        data = [[d[0] for d in site] for site in local.data]
        return after, carrier.factors(graph, before, after, entry, drives, data)

    if _is_mapped(problem, prepared, carry, steps):
        carries, last, results = _recorded(problem, prepared, carry, steps)
        moments = carries, steps, results
        of_live, seen, reports = _derivatives(problem, prepared, moments, steps.count)
        traces, factors = jax.lax.scan(
            lambda traces, at: follow(traces, *at), traces, (seen, steps.marks)
        )
    else:
        zero = jax.tree.map(jnp.zeros_like, _live(problem, prepared))

        def one(state: Any, at: Steps) -> tuple[Any, Any]:
            carry, traces, sums = state
            of_live, seen, report = _derivatives(problem, prepared, (carry, at, []), None)
            after, factors = follow(traces, seen, at.marks)
            return (seen[0].carry, after, jax.tree.map(jnp.add, sums, of_live)), (factors, report)

        (last, traces, of_live), (factors, reports) = scan(one, (carry, traces, zero), steps)
    of_ready, of_extra = jax.tree.map(jnp.add, total, of_live)
    of_sites = [
        s.rule.weight_gradient_sum(x, c) for s, (x, c) in zip(graph.sites, factors, strict=True)
    ]
    return (added(graph, of_ready, of_sites), of_extra), EngineState(last, traces), reports


def pays(graph: CellGraph) -> bool:
    """Whether the steps of a window are faster mapped: they are small, or no product waits for the
    step before.
    """
    widest = max((s.y.size * sum(len(p.slots) for p in s.places) for s in graph.sites), default=0)
    return widest <= _WIDEST or not feeds_back_at_a_cost(graph)


def _is_mapped(problem: Problem, prepared: Prepared, carry: list[Any], steps: Steps) -> bool:
    if steps.count == 1 or not pays(problem.graph):
        return False
    first = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), steps)
    program = jax.make_jaxpr(lambda *given: _forward(problem, *given))(prepared, carry, first)
    return can_be_mapped(program)


def _live(problem: Problem, prepared: Prepared) -> Gradients:
    return differentiable_part(problem.graph, prepared.ready)[1], prepared.extra


def _forward(
    problem: Problem, prepared: Prepared, carry: list[Any], at: Steps
) -> tuple[list[Any], Any]:
    """The new carry of a step, and the results of its equations that are worth keeping."""
    kept = worth_keeping(problem.graph)

    def recording(graph: CellGraph, ready: Any, carry: Any, xs: Any, perturbations: Any) -> Step:
        new, outs, results = keeping_step(graph, ready, carry, xs, kept)
        return Step(new, new, outs, results)

    carry = problem.begin(prepared, carry, at)
    done = problem.body(recording, stop(prepared.ready), stop(prepared.extra), carry, [], at.slices)
    return stop(list(done.step.local)), done.step.data


def _recorded(
    problem: Problem, prepared: Prepared, carry: list[Any], steps: Steps
) -> tuple[list[Any], list[Any], Any]:
    """(the carry before each step, the last one, the kept results of each step)."""

    def one(carry: list[Any], at: Steps) -> tuple[list[Any], Any]:
        new, results = _forward(problem, prepared, carry, at)
        return new, (carry, results)

    last, (carries, results) = jax.lax.scan(one, carry, steps)
    return carries, last, results


def _derivatives(
    problem: Problem, prepared: Prepared, moments: Any, count: int | None
) -> tuple[Gradients, tuple[Sensitivity, Any, Any], Any]:
    """Of one step, or of `count` steps at once, time first: (the sum of the gradients of what is no
    site, (sensitivities, entry, drives) for each step, the reports).

    `moments`: the carry before the step, its `Steps` and results that are known of it.
    """
    graph = problem.graph
    merge, live = differentiable_part(graph, prepared.ready)
    known = worth_keeping(graph)

    def one(live: Any, extra: Any, hidden: Any, perturbations: Any, moment: Any) -> Any:
        carry, at, results = moment
        evaluate: Any = step
        if results:
            evaluate = functools.partial(step, known=dict(zip(known, results, strict=True)))
        carry = problem.begin(prepared, with_hidden(graph, carry, hidden), at)
        done = problem.body(evaluate, merge(live), extra, carry, perturbations, at.slices)
        end = hidden_part(graph, done.step.local)
        after = stop(list(done.step.local)), done.step.data
        return (done.loss, end), (after, done.report, stop(done.xs))

    def alone(hidden: Any, perturbations: Any, moment: Any, xs: Any) -> Any:
        carry, at, _ = moment
        carry = problem.begin(prepared, with_hidden(graph, carry, hidden), at)
        done = step(graph, stop(prepared.ready), carry, xs, perturbations)
        return hidden_part(graph, done.local)

    if count is not None:
        one, alone = jax.vmap(one, (None, None, 0, 0, 0)), jax.vmap(alone)

    def objective(*primals: Any) -> tuple[Any, Any]:
        (loss, end), found = one(*primals, moments)
        return (loss.sum(), end), found

    start = hidden_part(graph, moments[0]), zero_nudges(graph, count)
    (value, end), pull, (after, reports, xs) = jax.vjp(
        objective, live, prepared.extra, *start, has_aux=True
    )
    of_live, of_extra, entry, drives = pull(
        (jnp.ones_like(value), jax.tree.map(jnp.zeros_like, end))
    )
    if injects(graph):
        _, pull_end = jax.vjp(lambda *at: alone(*at, moments, xs), *start)
    else:
        pull_end = lambda end: pull((jnp.zeros_like(value), end))[2:]
    local = _sensitivities(graph, end, pull_end, after, count)
    return (of_live, of_extra), (local, entry, every_drive(graph, drives)), reports


def _sensitivities(
    graph: CellGraph, end: Sequence[Any], pull: Any, after: Any, count: int | None
) -> Sensitivity:
    """What `pulled_back` finds of one step, with the time axis that it has; of `count` steps, each
    by itself: they do not depend on each other. `after`: the carry and the sites' data.
    """
    add_time = lambda tree, axis: jax.tree.map(lambda v: jnp.expand_dims(v, axis), tree)
    axis = 0 if count is None else 1
    like = end if count is None else [jax.ShapeDtypeStruct(h.shape[1:], h.dtype) for h in end]

    def with_time(one: list[Any]) -> tuple[list[Any], list[Any]]:
        if count is not None:
            one = [jnp.broadcast_to(v, (count, *v.shape)) for v in one]
        rows, drives = pull(one)
        return rows, add_time(drives, axis)

    carry, data = after
    return pulled_back(graph, like, with_time, add_time(data, axis), carry)
