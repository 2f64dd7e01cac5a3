"""A window for traces whose gradient is made of factors: its steps one by one, then one weight
product for each site.

    1  each step: entry a_t, drive delta_t, D_t and f_t; the traces; the factors (x_t, c_t)
    2  one weight product for each site, over the factors of all steps (`window_factors`)

Between products, all of step 1 is elementwise and stays in cache. To map the steps of a window
instead (their derivatives do not depend on each other) takes a window's arrays through memory, and
was slower except for a single sample.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..step import Perturbations, calls_back, hidden_part, step, with_hidden
from ..traces import (
    FactorCarrier,
    Sensitivity,
    StepSignals,
    cleared_data,
    cleared_drives,
    every_drive,
    pulled_back,
    scan,
    timed,
    window_factors,
    window_gradients,
    zero_perturbations,
)
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


def factor_window(
    problem: Problem, prepared: Prepared, state: EngineState, steps: Steps, total: Gradients
) -> tuple[Gradients, EngineState, PyTree]:
    """As `trace_window`, for a `FactorCarrier`."""
    problem = problem.bound(prepared)
    graph, carrier = problem.graph, problem.rule.carrier
    assert isinstance(carrier, FactorCarrier)
    arrays: list[tuple[int, int]] = []

    def single(carried: tuple[EngineState, Gradients], at: Steps) -> PyTree:
        state, sums = carried
        of_step, local, signals, report = _derivatives(problem, prepared, state.carry, at)
        before, begun = state.traces, at.begun
        before = before if begun is None else carrier.reset(graph, before, begun)
        after = carrier.advance(graph, before, local)
        factors = window_factors(graph, carrier, before, after, signals)
        distinct, arrays[:] = _distinct(factors)
        sums = jax.tree.map(jnp.add, sums, of_step)
        return (EngineState(local.carry, after), sums), (distinct, report)

    traces = carrier.init(graph) if state.traces is None else state.traces
    first = EngineState(stop(list(state.carry)), traces)
    (last, (of_ready, of_extra)), (distinct, reports) = scan(single, (first, total), steps)
    pairs = [(distinct[x], distinct[c]) for x, c in arrays]
    of_sites = window_gradients(graph, carrier, traces, pairs, steps.begun)
    return (added(graph, of_ready, of_sites), of_extra), last, (reports, None)


def _derivatives(
    problem: Problem, prepared: Prepared, carry: list[Array], at: Steps
) -> tuple[Gradients, Sensitivity, StepSignals, PyTree]:
    """Of one step: the gradients of what is no site, the sensitivities, the signals, the report."""
    graph = problem.graph
    merge, live = differentiable_part(graph, prepared.ready)

    def objective(
        live: list[Array], extra: PyTree, hidden: list[Array], perturbations: Perturbations
    ) -> PyTree:
        start = problem.begin(prepared, with_hidden(graph, carry, hidden), at)
        done = problem.body(step, merge(live), extra, start, perturbations, at.slices)
        end = hidden_part(graph, done.step.local)
        return (done.loss, end), (done.step.local, done.report, done.step.data, done.xs)

    primals = (hidden_part(graph, carry), zero_perturbations(graph))
    (value, end), pull, (last, report, data, xs) = jax.vjp(
        objective, live, prepared.extra, *primals, has_aux=True
    )
    of_live, of_extra, entry, drives = pull(
        (jnp.ones_like(value), jax.tree.map(jnp.zeros_like, end))
    )

    def local_end(hidden: list[Array], perturbations: Perturbations) -> list[Array]:
        start = problem.begin(prepared, with_hidden(graph, carry, hidden), at)
        start = list(own_carry(graph, start))
        done = step(graph, stop(prepared.ready), start, stop(xs), perturbations)
        return hidden_part(graph, done.local)

    pull_end: Callable[[list[Array]], tuple[list[Array], list[Array | None]]]
    if any(map(calls_back, graph.step)) and not injects(graph):  # calls back once
        pull_end = lambda end: pull((jnp.zeros_like(value), end))[2:]
    else:  # what it shares with the evaluation above is done once; the way to the loss is left out
        _, pull_end = jax.vjp(local_end, *primals)

    def with_time(end: list[Array]) -> tuple[list[Array], list[Array | None]]:
        rows, drives = pull_end(end)
        return rows, timed(drives)

    unread = None if at.dead is None else at.dead[None]
    local = pulled_back(graph, end, with_time, timed(data), stop(list(last)), unread)
    if at.dead is not None:
        drives = cleared_drives(graph, drives, at.dead)
        data = cleared_data(graph, data, at.dead)
    signals = StepSignals(entry, every_drive(graph, drives), data)
    return (of_live, of_extra), local, signals, report


def _distinct(factors: list[tuple[Array, Array]]) -> tuple[list[Array], list[tuple[int, int]]]:
    """The arrays of `factors`, each once, and where each pair's are among them."""
    arrays = list({id(v): v for pair in factors for v in pair}.values())
    number = {id(v): k for k, v in enumerate(arrays)}
    return arrays, [(number[id(x)], number[id(c)]) for x, c in factors]
