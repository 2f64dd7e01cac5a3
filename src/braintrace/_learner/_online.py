"""Online learning on a cell graph: one update, and a whole window of steps. Pure functions on flat lists.

The gradient of step t is

    G_t = (ordinary gradient of the signal lane) + (pull-back of the prelude)(contract(a_t, C_{t-1}))

with a_t the derivative of L_t with respect to the hidden state before the step. `attach` makes automatic differentiation
deliver the second term: forward it is the identity on the hidden state; backward it contracts the cotangent with the traces.
"""

from collections.abc import Sequence
from typing import Any

import jax

from .._analysis import CellGraph
from .._parts import PerParameter, Rule, scan, sensitivity
from .._step import plain_step, prelude, step

stop = jax.lax.stop_gradient




def attach(graph: CellGraph, carrier: PerParameter, ready: Sequence[Any], carry: Sequence[Any], traces: Any) -> list[Any]:
    """`carry`, stopped, whose hidden leaves pass their cotangent to the weights of the sites through the traces."""

    @jax.custom_vjp
    def identity(weights: list[Any], hidden: list[Any], traces: Any) -> list[Any]:
        return hidden

    def forward(weights: list[Any], hidden: list[Any], traces: Any) -> tuple[list[Any], Any]:
        return hidden, (hidden, traces)

    def backward(kept: Any, cotangent: list[Any]) -> tuple[list[Any], None, None]:
        _, traces = kept
        return carrier.contract(graph, traces, cotangent), None, None

    identity.defvjp(forward, backward)
    env = dict(zip(graph.prelude_results, ready, strict=True))
    hidden = identity([env[s.weight] for s in graph.sites], [stop(carry[k]) for k in graph.hidden], stop(traces))
    out = [stop(c) for c in carry]
    for k, h in zip(graph.hidden, hidden, strict=True):
        out[k] = h
    return out


def update(
    graph: CellGraph, rule: Rule, params: Sequence[Any], carry: Sequence[Any], traces: Any, xs: Sequence[Any]
) -> tuple[list[Any], Any, list[Any]]:
    """One step: (new carry, new traces, outputs). Differentiating outputs or new carry gives the online gradient."""
    ready = prelude(graph, params)
    result = step(graph, ready, attach(graph, rule.carrier, ready, carry, traces), xs)
    one = [x[None] for x in stop(list(xs))]
    local = sensitivity(graph, stop(ready), stop(list(carry)), one)
    return result.carry, rule.carrier.advance(graph, stop(traces), local), result.outs


def window(
    graph: CellGraph, rule: Rule, params: Sequence[Any], carry: Sequence[Any], traces: Any, xs: Sequence[Any], full: bool
) -> tuple[list[Any], Any, list[Any]]:
    """All steps of `xs` (time first) at once: as `update`, with outputs stacked.

    With `full` the gradient is that of BPTT inside the window plus the traces at its entry; without, it is the sum of the
    online gradients of its steps.
    """
    ready = prelude(graph, params)

    def one(carry: list[Any], xs: Sequence[Any]) -> tuple[list[Any], tuple[list[Any], list[Any]]]:
        if full:
            new, outs = plain_step(graph, ready, carry, xs)
            return new, (new, outs)
        result = step(graph, ready, carry, xs)
        return result.local, (result.carry, result.outs)

    start = attach(graph, rule.carrier, ready, carry, traces)
    _, (carries, outs) = scan(one, start, list(xs))
    local = sensitivity(graph, stop(ready), stop(list(carry)), stop(list(xs)))
    return [c[-1] for c in carries], rule.carrier.advance(graph, stop(traces), local), outs
