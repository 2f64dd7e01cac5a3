"""Whole sequences: gradients accumulated over windows, in memory that does not grow with the length
of the sequence.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..analysis import CellGraph
from ..step import Values, free_step, plain_step, prelude
from ..traces import FactorCarrier, Traces
from ._factor_window import factor_window
from ._online import window
from ._records import EngineState, Gradients, Prepared, Problem, Steps, differentiable_part
from ._rule import Rule
from ._trace_window import trace_window

WINDOW_BYTES = 256 << 20  # what the stacked inputs and derivatives of a window may take


def default_window(graph: CellGraph, rule: Rule, steps: int) -> int:
    """How many steps are done at once: as many as fit the budget and are of use."""
    held = sum(
        s.y.size * (1 + len(s.places)) + sum(getattr(v, "size", 0) for v in s.data)
        for s in graph.sites
    )
    if not isinstance(rule.carrier, FactorCarrier):  # which keeps factors alone
        held += 8 * sum(graph.carry[k].size for k in graph.hidden)
    longest = rule.carrier.useful_window(graph)
    return _even(steps, max(1, min(steps, longest, WINDOW_BYTES // max(4 * held, 1))))


def _even(steps: int, longest: int) -> int:
    """The longest window that leaves no remainder, which would be a second program with its own
    buffers; over half of `longest`.
    """
    return next((k for k in range(longest, longest // 2, -1) if steps % k == 0), longest)


def sequence_gradient(
    problem: Problem,
    params: Values,
    extra: PyTree,
    state: EngineState,
    steps: Steps,
    *,
    window: int,
    keep_trace: bool,
    initial: Values = (),
) -> tuple[tuple[list[Array | None], PyTree], EngineState, PyTree]:
    """((gradient of each parameter, of `extra`), state, (reports of the body, of the carrier)): the
    sum of the online gradients of all steps.

    `initial`: the carry that marked samples are reset to. Without `keep_trace` the traces of the
    new state mean nothing.
    """
    graph, rule = problem.graph, problem.rule
    window = min(window, rule.carrier.longest_window or window)
    ready, pull = differentiable_prelude(graph, params)
    prepared = Prepared(ready, extra, list(initial))
    total = jax.tree.map(jnp.zeros_like, (differentiable_part(graph, ready)[1], extra))
    count, remainder = divmod(steps.count, window)

    def block(
        carried: tuple[Gradients, EngineState], steps: Steps, keep: bool
    ) -> tuple[tuple[Gradients, EngineState], PyTree]:
        total, state = carried
        if isinstance(rule.carrier, FactorCarrier):
            total, state, reports = factor_window(problem, prepared, state, steps, total)
        else:
            total, state, reports = trace_window(problem, prepared, state, steps, total, keep)
        return (total, state), reports

    def part(start: int | Array, length: int) -> Steps:
        return jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, length), steps)

    if count > 1 and not remainder and not keep_trace:
        count, remainder = count - 1, window  # nobody reads the trace after the last window
    carried, reports = (total, state), []
    if count == 1:
        carried, report = block(carried, part(0, window), keep_trace or remainder > 0)
        reports.append(report)
    elif count:
        if state.traces is None:
            state = dataclasses.replace(state, traces=rule.carrier.init(graph))
        carried, report = jax.lax.scan(
            lambda carried, start: block(carried, part(start, window), True),
            (total, state),
            window * jnp.arange(count),
        )
        reports.append(jax.tree.map(lambda v: v.reshape(count * window, *v.shape[2:]), report))
    if remainder:
        carried, report = block(carried, part(count * window, remainder), keep_trace)
        reports.append(report)
    (of_ready, of_extra), state = carried
    joined = (
        jax.tree.map(lambda *v: jnp.concatenate(v), *reports) if len(reports) > 1 else reports[0]
    )
    return (pull(of_ready), of_extra), state, joined


def exact_gradient(
    problem: Problem,
    params: Values,
    extra: PyTree,
    carry: Values,
    steps: Steps,
    initial: Values = (),
) -> tuple[list[Array | None], PyTree]:
    """(gradient of each parameter, of `extra`) by backpropagation through all steps, in memory that
    grows with their number.
    """
    graph = problem.graph
    ready, pull = differentiable_prelude(graph, params)
    prepared = Prepared(ready, extra, list(initial))
    merge, live = differentiable_part(graph, ready)
    free = lambda graph, ready, carry, xs, _: free_step(graph, ready, carry, xs)

    def total(live: list[Array], extra: PyTree) -> Array:
        def single(carry: list[Array], now: Steps) -> tuple[list[Array], Array]:
            start = problem.begin(prepared, carry, now)
            done = problem.body(free, merge(live), extra, start, (), now.slices)
            return done.step.local, done.loss

        return jax.lax.scan(single, list(carry), steps)[1].sum()

    of_ready, of_extra = jax.grad(total, (0, 1))(live, extra)
    return pull(of_ready), of_extra


def differentiable_prelude(
    graph: CellGraph, params: Values
) -> tuple[list[Array], Callable[[list[Array]], list[Array | None]]]:
    """The prelude's values, and a function from cotangents of their differentiable part to
    gradients of the parameters.

    Parameters that are not differentiable get None.
    """
    numbers = [k for k, v in enumerate(graph.params) if v.differentiable]

    def forward(live: list[Array]) -> tuple[list[Array], list[Array]]:
        merged = list(params)
        for k, v in zip(numbers, live, strict=True):
            merged[k] = v
        ready = prelude(graph, merged)
        return differentiable_part(graph, ready)[1], ready

    _, pull, ready = jax.vjp(forward, [params[k] for k in numbers], has_aux=True)

    def gradients(cotangents: list[Array]) -> list[Array | None]:
        found = dict(zip(numbers, pull(cotangents)[0], strict=True))
        return [found.get(k) for k in range(len(graph.params))]

    return ready, gradients


def evolve(
    graph: CellGraph, params: Values, carry: Values, xs: Values, held: bool = True
) -> tuple[list[Array], list[Array] | None]:
    """Forward only: (carry, outputs stacked), None in place of outputs that are not `held`."""
    ready = prelude(graph, params)
    full = EngineState.of(graph, carry, None).carry

    def step(carry: list[Array], x: list[Array]) -> PyTree:
        carry, outs = plain_step(graph, ready, carry, x)
        return carry, outs if held else None

    last, outs = jax.lax.scan(step, full, list(xs))
    return EngineState(last, None).parts(graph)[0], outs


def advance(
    graph: CellGraph,
    rule: Rule,
    params: Values,
    carry: Values,
    traces: Traces,
    xs: Values,
    size: int,
    held: bool = True,
) -> tuple[list[Array], Traces, list[Array] | None]:
    """Forward over a sequence with the traces, `size` steps at once: (carry, traces, outputs
    stacked), None in place of outputs that are not `held`.
    """
    count, remainder = divmod(xs[0].shape[0], size)

    def block(state: tuple[list[Array], Traces], xs: list[Array]) -> PyTree:
        carry, traces, outs = window(graph, rule, params, *state, xs, False)
        return (carry, traces), outs if held else None

    blocks = [v[: count * size].reshape(count, size, *v.shape[1:]) for v in xs]
    state, outs = jax.lax.scan(block, (list(carry), traces), blocks)
    outs = jax.tree.map(lambda v: v.reshape(count * size, *v.shape[2:]), outs)
    if remainder:
        state, last = block(state, [v[count * size :] for v in xs])
        outs = jax.tree.map(lambda *pair: jnp.concatenate(pair), outs, last)
    carry, traces = state
    return carry, traces, outs
