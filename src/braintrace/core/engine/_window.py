"""The gradient over a window of K steps at once: the same numbers as step by step, with 1/K of the
trace traffic.

With fixed parameters, one reverse pass over the two lanes gives, for t = K..1,

    c_t = a_t + D_t^T c_{t+1}          d_t = delta_t + f_t . c_{t+1}          (c_{K+1} = 0)
    G   = (op's weight gradient over the stacked x_t, d_t)  +  contract(c_1, C_0)

d_t is the derivative with respect to a zero nudge on each site's y, so one matrix product replaces
K outer products and the trace is read once. When no later step needs the trace, it is not formed.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..analysis import CellGraph, Site
from ..sites import sum_steps
from ..step import Step, calls_back, saving_step, step
from ..traces import (
    Pull,
    Sensitivity,
    Sums,
    every_drive,
    pulled_back,
    scan,
    sensitivity,
    zero_nudges,
)
from ._extra import injects, with_signals
from ._online import advance_through, observe, reset_marks
from ._rule import Rule

stop = jax.lax.stop_gradient

WINDOW_BYTES = 256 << 20  # what the stacked inputs and derivatives of a window may take


# of the differentiable part of the prelude's values, and of a body's `extra`
Gradients = tuple[list[Any], Any]


@dataclasses.dataclass(frozen=True)
class Stepped:
    """What one step of a window gives: the cell's `Step`, the inputs it consumed, the weighted
    loss, and what to report.
    """

    step: Step
    xs: list[Any]
    loss: Any
    report: Any


# (`step` or `saving_step`, values of the prelude, other differentiable values, carry, nudges, this
# step's slice of the sequences) -> Stepped
Body = Callable[[Callable[..., Step], Sequence[Any], Any, list[Any], Sequence[Any], Any], Stepped]


def window_gradient(
    graph: CellGraph,
    rule: Rule,
    body: Body,
    ready: Sequence[Any],
    extra: Any,
    total: Gradients,
    carry: Sequence[Any],
    traces: Any,
    at: Any,
    signals: Any,
    keep_trace: bool,
) -> tuple[Gradients, list[Any], Any, Any]:
    """(`total` plus the gradient of the differentiable part of `ready` and that of `extra`, new
    carry, new traces, reports).

    `at` holds the sequences' slices and `signals` those of the algorithm, time first; `traces` may
    be None: zero. Carry and traces are the engine's (`opened`).
    """
    graph = graph.bound(stop(graph.structure(ready)))
    if rule.carrier.factored:
        new, last, traces, reports = _factored_gradient(
            graph, rule, body, ready, extra, carry, traces, (at, signals)
        )
        return jax.tree.map(jnp.add, total, new), last, traces, reports
    steps = jax.tree.leaves(at)[0].shape[0]
    evaluate = saving_step if steps > 1 else step
    merge, live = differentiable_part(graph, ready)

    def objective(
        live: list[Any], extra: Any, hidden: list[Any], nudges: list[Any]
    ) -> tuple[Any, Any]:
        values = merge(live)
        start = with_hidden(graph, carry, hidden)

        def one(carry: list[Any], at: Any) -> tuple[list[Any], Any]:
            nudges, slices, signals = at
            done = body(
                evaluate, values, extra, with_signals(graph, carry, signals), nudges, slices
            )
            return done.step.local, (done.loss, done.report, done.step.data, stop(done.xs))

        last, (losses, reports, data, xs) = scan(one, start, (nudges, at, signals))
        return (losses.sum(), hidden_part(graph, last)), (last, reports, data, xs)

    primals = (live, extra, hidden_part(graph, carry), zero_nudges(graph, steps))
    (value, end), pull, (last, reports, data, xs) = jax.vjp(objective, *primals, has_aux=True)
    direct, of_extra, entry, drives = pull(
        (jnp.ones_like(value), jax.tree.map(jnp.zeros_like, end))
    )
    drives = every_drive(graph, drives)
    variables = [v for v in graph.prelude_results if v.differentiable]
    so_far, total_extra = total
    sums = {v: a + b for v, a, b in zip(variables, so_far, direct, strict=True)}
    last = [stop(c) for c in last]
    together = keep_trace and not injects(graph)
    later = [together and steps == 1 and rule.carrier.adds_now(graph, site) for site in graph.sites]
    sums = _add_own_gradients(graph, sums, ready, data, drives, later)
    if together:
        start = rule.carrier.init(graph) if traces is None else traces
        if rule.carrier.whole_layer and not any(
            map(calls_back, graph.step)
        ):  # many passes: through the local lane alone
            local = sensitivity(graph, stop(list(ready)), stop(list(own_carry(graph, carry))), xs)
        else:
            local = pulled_back(
                graph, end, lambda end: pull((jnp.zeros_like(value), end))[2:], data, last
            )
        now = [d[0] for d in drives] if steps == 1 else None
        traces, sums = rule.carrier.advance_and_contract(graph, start, local, entry, sums, now)
    else:
        if traces is not None:
            sums = added(graph, sums, rule.carrier.contract(graph, traces, entry))
        if keep_trace:
            start = rule.carrier.init(graph) if traces is None else traces
            traces = advance_through(graph, rule, ready, own_carry(graph, carry), start, xs)
    of_extra = jax.tree.map(jnp.add, total_extra, of_extra)
    return ([sums[v] for v in variables], of_extra), last, traces, reports


def _factored_gradient(
    graph: CellGraph,
    rule: Rule,
    body: Body,
    ready: Sequence[Any],
    extra: Any,
    carry: Sequence[Any],
    traces: Any,
    at: Any,
) -> tuple[tuple[list[Any], Any], list[Any], Any, Any]:
    """As `window_gradient`, for carriers that turn each step's signals into factors: one weight
    product for all steps.
    """
    merge, live = differentiable_part(graph, ready)
    traces = rule.carrier.init(graph) if traces is None else traces
    numbers: list[tuple[int, int]] = []

    def one(state: Any, at: Any) -> tuple[Any, Any]:
        carry, before, total = state
        at, signals = at
        carry = with_signals(graph, carry, signals)

        def objective(
            live: list[Any], extra: Any, hidden: list[Any], nudges: list[Any]
        ) -> tuple[Any, Any]:
            done = body(step, merge(live), extra, with_hidden(graph, carry, hidden), nudges, at)
            return (done.loss, hidden_part(graph, done.step.local)), (
                done.step.local,
                done.report,
                done.step.data,
                done.xs,
            )

        primals = (live, extra, hidden_part(graph, carry), zero_nudges(graph))
        (value, end), pull, (last, report, data, xs) = jax.vjp(objective, *primals, has_aux=True)
        of_live, of_extra, entry, drives = pull(
            (jnp.ones_like(value), jax.tree.map(jnp.zeros_like, end))
        )
        last = [stop(c) for c in last]
        if injects(graph):
            local = observe(graph, rule, ready, own_carry(graph, carry), xs)
        else:
            local = _one_step(
                graph, rule, end, lambda end: pull((jnp.zeros_like(value), end))[2:], data, last
            )
        after = rule.carrier.advance(graph, before, local, reset_marks(graph, stop(xs)))
        factors = rule.carrier.factors(
            graph, before, after, entry, every_drive(graph, drives), data
        )
        stacked, number = _distinct(factors)
        numbers[:] = number
        return (last, after, jax.tree.map(jnp.add, total, (of_live, of_extra))), (stacked, report)

    zero = jax.tree.map(jnp.zeros_like, (live, extra))
    (last, traces, (direct, of_extra)), (stacked, reports) = scan(
        one, (stop(list(carry)), traces, zero), at
    )
    factors = [(stacked[x], stacked[c]) for x, c in numbers]
    of_sites = [
        site.rule.weight_gradient_sum(x, c)
        for site, (x, c) in zip(graph.sites, factors, strict=True)
    ]
    variables = [v for v in graph.prelude_results if v.differentiable]
    sums = added(graph, dict(zip(variables, direct, strict=True)), of_sites)
    return ([sums[v] for v in variables], of_extra), last, traces, reports


def _distinct(factors: list[tuple[Any, Any]]) -> tuple[list[Any], list[tuple[int, int]]]:
    """The arrays of `factors`, each once, and where each pair's are among them."""
    found: dict[int, int] = {}
    arrays: list[Any] = []
    for array in (v for pair in factors for v in pair):
        if id(array) not in found:
            found[id(array)] = len(arrays)
            arrays.append(array)
    return arrays, [(found[id(x)], found[id(c)]) for x, c in factors]


def _one_step(
    graph: CellGraph, rule: Rule, end: list[Any], pull: Pull, data: list[list[Any]], last: list[Any]
) -> Sensitivity:
    """The sensitivities of one step, with the time axis that they have."""
    timed = [[d[None] for d in site] for site in data]
    if not rule.carrier.needs_dynamics:
        return Sensitivity([], timed, last)

    def with_time(end: list[Any]) -> tuple[list[Any], list[Any]]:
        rows, drives = pull(end)
        return rows, [None if d is None else d[None] for d in drives]

    return pulled_back(graph, end, with_time, timed, last)


def own_carry(graph: CellGraph, carry: Sequence[Any]) -> Sequence[Any]:
    """The cell's part of a carry: a body may carry more values of its own behind it."""
    return carry[: len(graph.carry)]


def hidden_part(graph: CellGraph, carry: Sequence[Any]) -> list[Any]:
    """The hidden leaves of a carry."""
    return [carry[k] for k in graph.hidden]


def with_hidden(graph: CellGraph, carry: Sequence[Any], hidden: Sequence[Any]) -> list[Any]:
    """`carry` with its hidden leaves replaced."""
    out = list(carry)
    for k, h in zip(graph.hidden, hidden, strict=True):
        out[k] = h
    return out


def differentiable_part(
    graph: CellGraph, ready: Sequence[Any]
) -> tuple[Callable[[list[Any]], list[Any]], list[Any]]:
    """The differentiable values of the prelude, and a function that puts them back among the
    others.
    """
    numbers = [k for k, v in enumerate(graph.prelude_results) if v.differentiable]

    def merge(live: list[Any]) -> list[Any]:
        merged = [stop(v) for v in ready]
        for k, v in zip(numbers, live, strict=True):
            merged[k] = v
        return merged

    return merge, [ready[k] for k in numbers]


def added(graph: CellGraph, sums: Sums, gradients: Sequence[Any]) -> Sums:
    """`sums` with each site's gradient (None for none) added to that of its weight."""
    sums = dict(sums)
    for site, gradient in zip(graph.sites, gradients, strict=True):
        if gradient is not None:
            sums[site.weight] = sums[site.weight] + gradient.astype(site.weight.dtype)
    return sums


def _add_own_gradients(
    graph: CellGraph,
    sums: Sums,
    ready: Sequence[Any],
    data: list[list[Any]],
    drives: list[Any],
    later: list[bool],
) -> Sums:
    """`sums` with what the drives stand for, over time, one product for all steps; not for the
    sites that are done `later`.
    """
    env = dict(zip(graph.prelude_results, ready, strict=True))

    def gradient(site: Site, d: list[Any], c: Any) -> Any:
        return (
            site.rule.data_gradient_sum(d, c, env[site.weight])
            if site.is_operation
            else sum_steps(c)
        )

    every = zip(graph.sites, data, drives, later, strict=True)
    return added(
        graph, sums, [None if left else gradient(site, d, c) for site, d, c, left in every]
    )


def cell_body(graph: CellGraph, loss: Callable[[list[Any], Any], tuple[Any, Any]]) -> Body:
    """The body of a plain cell: slices are (inputs, target), and `loss(outs, target)` is (weighted
    loss, report).
    """

    def body(
        evaluate: Any,
        ready: Sequence[Any],
        extra: Any,
        carry: list[Any],
        nudges: Sequence[Any],
        at: Any,
    ) -> Stepped:
        xs, target = at
        done = evaluate(graph, ready, carry, xs, nudges)
        value, report = loss(done.outs, target)
        return Stepped(done, xs, value, report)

    return body
