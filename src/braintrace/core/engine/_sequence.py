"""Whole sequences: gradients accumulated over windows, in memory that does not grow with the length
of the sequence.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..analysis import CellGraph
from ..step import plain_step, prelude
from ..traces import largest_coupled
from ._extra import Signals, closed, opened
from ._mapped import factored_window
from ._online import NO_SIGNALS, window
from ._rule import Rule
from ._window import WINDOW_BYTES, Body, differentiable_part, window_gradient

_LONGEST_WINDOW = 64
_LONGEST_FACTORED = 16


def default_window(graph: CellGraph, rule: Rule, steps: int) -> int:
    """How many steps are done at once: as many as fit the budget, at most 64; fewer where each
    step's signals become factors.

    Factors gain nothing from longer windows but their one product, which is at its speed by then:
    16 steps, 64 of a single lane. Traces of a whole layer of n elements are multiplied by n x n
    numbers once in a window, and driven by one number a step: 2n steps make the former the less.
    """
    longest = _LONGEST_WINDOW
    if rule.carrier.factored:
        longest = max(_LONGEST_FACTORED, _LONGEST_WINDOW // (graph.lanes or 1))
    if rule.carrier.whole_layer:
        longest = max(longest, 2 * largest_coupled(graph))
    numbers = sum(
        s.y.size * (1 + len(s.places)) + sum(getattr(v, "size", 0) for v in s.data)
        for s in graph.sites
    )
    numbers += 8 * sum(graph.carry[k].size for k in graph.hidden)
    return _even(steps, max(1, min(steps, longest, WINDOW_BYTES // max(4 * numbers, 1))))


def _even(steps: int, longest: int) -> int:
    """The longest window that leaves no rest, which would be a second program with its own buffers;
    over half of `longest`.
    """
    return next((k for k in range(longest, longest // 2, -1) if steps % k == 0), longest)


def sequence_gradient(
    graph: CellGraph,
    rule: Rule,
    body: Body,
    params: Sequence[Any],
    extra: Any,
    carry: Sequence[Any],
    traces: Any,
    at: Any,
    window: int,
    keep_trace: bool,
    signals: Signals = NO_SIGNALS,
) -> tuple[tuple[list[Any], Any], list[Any], Any, Any]:
    """((gradient of each parameter, of `extra`), carry, traces, reports): the sum of the online
    gradients of all steps.

    `at` holds the sequences' slices, time first, for `body`; `signals` what the algorithm wants set
    before each step.
    """
    carry, traces = opened(graph, carry, traces)
    at = (at, dict(signals))
    steps = jax.tree.leaves(at)[0].shape[0]
    window = min(window, rule.carrier.longest_window or window)
    ready, pull = differentiable_prelude(graph, params)
    total = jax.tree.map(jnp.zeros_like, (differentiable_part(graph, ready)[1], extra))
    count, rest = divmod(steps, window)

    def block(state: Any, at: Any, keep: bool) -> tuple[Any, Any]:
        total, carry, traces = state
        slices, chosen = at
        gradient = factored_window if rule.carrier.factored else window_gradient
        total, carry, traces, reports = gradient(
            graph, rule, body, ready, extra, total, carry, traces, slices, chosen, keep
        )
        return (total, carry, traces), reports

    def slices(start: Any, length: int) -> Any:
        return jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, start, length), at)

    if count > 1 and not rest and not keep_trace:  # nobody reads the trace after the last window
        count, rest = count - 1, window
    state, reports = (total, list(carry), traces), []
    if count == 1:
        state, report = block(state, slices(0, window), keep_trace or rest > 0)
        reports.append(report)
    elif count:
        if traces is None:
            state = (total, list(carry), rule.carrier.init(graph))
        starts = window * jnp.arange(count)
        state, report = jax.lax.scan(
            lambda s, start: block(s, slices(start, window), True), state, starts
        )
        reports.append(jax.tree.map(lambda v: v.reshape(count * window, *v.shape[2:]), report))
    if rest:
        state, report = block(state, slices(count * window, rest), keep_trace)
        reports.append(report)
    (of_ready, of_extra), carry, traces = state
    joined = (
        jax.tree.map(lambda *v: jnp.concatenate(v), *reports) if len(reports) > 1 else reports[0]
    )
    return (pull(of_ready), of_extra), *closed(graph, carry, traces), joined


def differentiable_prelude(
    graph: CellGraph, params: Sequence[Any]
) -> tuple[list[Any], Callable[[list[Any]], list[Any]]]:
    """The prelude's values, and a function from cotangents of their differentiable part to
    gradients of the parameters.

    Parameters that are not differentiable get None.
    """
    numbers = [k for k, v in enumerate(graph.params) if v.differentiable]

    def forward(live: list[Any]) -> tuple[list[Any], list[Any]]:
        merged = list(params)
        for k, v in zip(numbers, live, strict=True):
            merged[k] = v
        ready = prelude(graph, merged)
        return differentiable_part(graph, ready)[1], ready

    _, pull, ready = jax.vjp(forward, [params[k] for k in numbers], has_aux=True)

    def gradients(cotangents: list[Any]) -> list[Any]:
        found = dict(zip(numbers, pull(cotangents)[0], strict=True))
        return [found.get(k) for k in range(len(graph.params))]

    return ready, gradients


def evolve(
    graph: CellGraph, params: Sequence[Any], carry: Sequence[Any], xs: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """Forward only: (carry, outputs stacked)."""
    ready = prelude(graph, params)
    full, _ = opened(graph, carry, None)
    last, outs = jax.lax.scan(lambda c, x: plain_step(graph, ready, c, x), full, list(xs))
    return closed(graph, last, None)[0], outs


def advance(
    graph: CellGraph,
    rule: Rule,
    params: Sequence[Any],
    carry: Sequence[Any],
    traces: Any,
    xs: Sequence[Any],
    size: int,
) -> tuple[list[Any], Any, list[Any]]:
    """Forward over a sequence with the traces, `size` steps at once: (carry, traces, outputs
    stacked).
    """
    steps = xs[0].shape[0]
    count, rest = divmod(steps, size)

    def block(state: Any, xs: Any) -> tuple[Any, list[Any]]:
        carry, traces, outs = window(graph, rule, params, state[0], state[1], xs, False)
        return (carry, traces), outs

    blocks = [v[: count * size].reshape(count, size, *v.shape[1:]) for v in xs]
    state, outs = jax.lax.scan(block, (list(carry), traces), blocks)
    outs = [v.reshape(count * size, *v.shape[2:]) for v in outs]
    if rest:
        state, last = block(state, [v[count * size :] for v in xs])
        outs = [jnp.concatenate(pair) for pair in zip(outs, last, strict=True)]
    return state[0], state[1], outs
