"""Online learning on a cell graph: one update, and a whole window of steps. Pure functions on flat
lists. Their derivatives are those of `_link`.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array, PyTree

from .._precision import narrowed, widened
from ..analysis import CellGraph
from ..step import Step, Values, free_step, prelude, step
from ..traces import (
    FactorCarrier,
    StepSignals,
    TraceCarrier,
    Traces,
    scan,
    sensitivity,
    timed,
    untimed,
)
from ._link import Kept, link
from ._once import in_reverse
from ._records import EngineState, Steps
from ._rule import Rule
from ._signals import Signals, window_signals, with_signals

stop = jax.lax.stop_gradient

NO_SIGNALS: Signals = {}

Advanced = tuple[list[Array], Traces, list[Array]]  # (carry, traces, outputs)


def update(
    graph: CellGraph,
    rule: Rule,
    params: Values,
    carry: Values,
    traces: Traces,
    xs: Values,
    signals: Signals = NO_SIGNALS,
) -> Advanced:
    """One step: (new carry, new traces, outputs). Differentiating outputs or new carry gives the
    online gradient.
    """
    state = EngineState.of(graph, carry, traces)
    carry = with_signals(graph, state.carry, signals)
    params, xs = in_reverse((list(params), list(xs)))
    ready = prelude(graph, params)
    bound = graph.bound(stop(graph.structure(ready)))
    local = sensitivity(bound, stop(ready), stop(carry), timed(stop(list(xs))))
    moved = rule.carrier.advance(bound, stop(state.traces), local)
    data = untimed(local.data)

    def gradients(graph: CellGraph, kept: Kept, entry: Values, drives: Values) -> list[Array]:
        (before, after), data = kept
        return rule.carrier.gradients(graph, before, after, StepSignals(entry, drives, data))

    # what is kept for a reverse pass is memory
    after = moved if isinstance(rule.carrier, FactorCarrier) else None
    before = rule.carrier.read(bound, state.traces, local)
    kept = ((before, after), data)
    start, perturbations = link(graph, gradients, ready, carry, xs, kept)
    result = step(graph, ready, start, xs, perturbations)
    return *EngineState(result.carry, moved).parts(graph), result.outs


def window(
    graph: CellGraph,
    rule: Rule,
    params: Values,
    carry: Values,
    traces: Traces,
    xs: Values,
    full: bool,
) -> Advanced:
    """All steps of `xs` (time first) at once: as `update`, with outputs stacked.

    With `full` the gradient is that of BPTT inside the window plus the traces at its entry;
    without, it is the sum of the online gradients of its steps.
    """
    if not full and isinstance(rule.carrier, FactorCarrier):
        wide = widened(list(params))  # so that the gradients of the steps add up in it

        def online(state: tuple[list[Array], Traces], xs: list[Array]) -> PyTree:
            *after, outs = update(graph, rule, narrowed(wide, list(params)), *state, xs)
            return tuple(after), outs

        (carry, traces), outs = scan(online, (list(carry), traces), list(xs))
        return list(carry), traces, outs
    before = EngineState.of(graph, carry, traces)
    params, xs = in_reverse((list(params), list(xs)))
    ready = prelude(graph, params)
    evaluate, live = free_step if full else step, widened(ready)

    signals = window_signals(graph, xs[0].shape[0]) if full else NO_SIGNALS

    def single(carry: list[Array], at: tuple[Values, Signals]) -> tuple[list[Array], PyTree]:
        xs, now = at
        carry = with_signals(graph, carry, now)
        result = evaluate(graph, narrowed(live, ready), carry, xs)
        return result.local, (result.carry, result.outs)

    contract = lambda graph, traces, entry, _: rule.carrier.contract(graph, traces, entry)
    start, _ = link(graph, contract, ready, before.carry, xs, before.traces)
    _, (carries, outs) = scan(single, start, (list(xs), signals))
    bound = graph.bound(stop(graph.structure(ready)))
    after = advance_through(bound, rule, stop(ready), before, xs)
    return *EngineState([c[-1] for c in carries], after).parts(graph), outs


def advance_through(
    graph: CellGraph,
    rule: Rule,
    ready: Values,
    state: EngineState,
    xs: Values,
    marked: Callable[..., Step] | None = None,
    marks: Steps | None = None,
) -> Traces:
    """The traces after all steps of `xs` (time first); with the marks of these steps `marked` is
    the step (`Problem.marked_step`).
    """
    state, ready, xs = stop((state, list(ready), list(xs)))

    def move(state: EngineState, at: tuple[Values, Steps | None]) -> tuple[EngineState, None]:
        xs, now = at
        inputs, unread = (xs, None) if now is None else ([*xs, now.marks, now.dead], now.unread)
        local = sensitivity(graph, ready, state.carry, inputs, marked or step, unread)
        return EngineState(local.carry, rule.carrier.advance(graph, state.traces, local)), None

    if isinstance(rule.carrier, TraceCarrier) and rule.carrier.longest_window is None:
        return move(state, (xs, marks))[0].traces
    return scan(move, state, jax.tree.map(lambda x: x[:, None], (xs, marks)))[0].traces
