"""Online learning on a cell graph: one update, and a whole window of steps. Pure functions on flat
lists.

Automatic differentiation through a step delivers, for the loss L_t of that step, `entry` (the
derivative with respect to the hidden state before the step), for each site `drive` (that with
respect to its y), and the ordinary gradient of all that is not a site. `link` turns entry and
drives into the weight gradients of the rule: forward it is the identity on the hidden state and
zero perturbations on each y; backward it asks the carrier.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._compat import is_differentiable
from .._precision import narrowed, widened
from ..analysis import CellGraph
from ..step import Perturbations, Step, Values, free_step, hidden_part, prelude, step, with_hidden
from ..traces import (
    FactorCarrier,
    StepSignals,
    TraceCarrier,
    Traces,
    every_drive,
    scan,
    sensitivity,
    zero_perturbations,
)
from ._once import Refusal, in_reverse, undifferentiated
from ._records import EngineState, Signals, Steps, with_signals
from ._rule import Rule

stop = jax.lax.stop_gradient

NO_SIGNALS: Signals = {}

_SECOND = Refusal(
    "An online gradient has no derivative.",
    "a second derivative (jax.hessian, a grad of a grad) through a step of the learner",
    "one derivative",
    "differentiate a loss of the step once; for second derivatives differentiate the cell itself",
)

Kept = PyTree[Array]  # what the reverse pass of a step reads
Advanced = tuple[list[Array], Traces, list[Array]]  # (carry, traces, outputs)
Linked = tuple[list[Array], Perturbations]
# what is kept, `entry` and the drives of each site, to the gradient of each site's weight
Gradients = Callable[[CellGraph, Kept, Values, Values], list[Array]]


def link(
    graph: CellGraph, gradients: Gradients, ready: Values, carry: Values, xs: Values, kept: Kept
) -> Linked:
    """(carry, perturbations), stopped, whose cotangents reach the site weights as `gradients(graph,
    kept, entry, drives)`.

    `kept` gets no cotangent. It is not stopped itself: an eager call would then keep a copy of the
    traces. `forward` refuses a second derivative: of `ready` and `xs`, which the traces depend
    on.
    """

    @jax.custom_vjp
    def identity(weights: list[Array], hidden: list[Array], read: PyTree, kept: Kept) -> Linked:
        return apart((hidden, zero_perturbations(graph)), (weights, hidden, kept))

    def forward(
        weights: list[Array], hidden: list[Array], read: PyTree, kept: Kept
    ) -> tuple[Linked, PyTree]:
        once = undifferentiated(first_elements((weights, read)), _SECOND)
        return identity(weights, hidden, read, kept), (kept, once)

    def backward(kept: Kept, cotangents: Any) -> Any:  # None where nothing is differentiated
        ((kept, structure), once), (entry, drives) = kept, cotangents
        found = gradients(graph.bound(structure), kept, entry, every_drive(graph, drives))
        found = [beside(g, once) for g in found]
        of_weights = [g.astype(s.weight.dtype) for s, g in zip(graph.sites, found, strict=True)]
        return of_weights, None, None, None

    identity.defvjp(forward, backward)
    env, start = dict(zip(graph.prelude_results, ready, strict=True)), stop(list(carry))
    weights, kept = [env[s.weight] for s in graph.sites], (kept, stop(graph.structure(ready)))
    read = list(ready), list(xs)
    hidden, perturbations = identity(weights, hidden_part(graph, start), read, kept)
    return with_hidden(graph, start, hidden), perturbations


def apart(values: PyTree[Array], like: PyTree[Array]) -> PyTree[Array]:
    """`values`, mapped under `vmap` wherever a leaf of `like` is, so that the cotangents of the
    map's entries stay apart.

    A value that nothing mapped takes part in has one cotangent, the sum over the map, also where it
    meets mapped ones later.
    """
    mark = beside(jnp.zeros((), jnp.float32), first_elements(stop(like)))
    return jax.tree.map(lambda v: v + mark.astype(v.dtype), values)


def first_elements(values: PyTree[Array]) -> Float[Array, ""]:
    """A number that depends on every floating-point array of `values`."""
    total = jnp.zeros((), jnp.float32)
    for leaf in jax.tree.leaves(values):
        if is_differentiable(leaf.dtype) and leaf.size:
            total = total + leaf.reshape(-1)[0].real.astype(jnp.float32)
    return total


def beside(value: Array, other: Float[Array, ""]) -> Array:
    """`value`, which for transformations of JAX depends on `other`, too."""
    never = jnp.zeros((), bool)
    return jax.lax.select(never, jnp.full(value.shape, other.astype(value.dtype)), value)


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
    timed = [x[None] for x in stop(list(xs))]
    local = sensitivity(bound, stop(ready), stop(carry), timed)
    moved = rule.carrier.advance(bound, stop(state.traces), local)
    data = [[d[0] for d in site] for site in local.data]

    def gradients(graph: CellGraph, kept: Kept, entry: Values, drives: Values) -> list[Array]:
        (before, after), data = kept
        return rule.carrier.gradients(graph, before, after, StepSignals(entry, drives, data))

    # what is kept for a reverse pass is memory
    after = moved if isinstance(rule.carrier, FactorCarrier) else None
    kept = ((state.traces, after), data)
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

    def single(carry: list[Array], xs: Values) -> tuple[list[Array], PyTree]:
        result = evaluate(graph, narrowed(live, ready), carry, xs)
        return result.local, (result.carry, result.outs)

    contract = lambda graph, traces, entry, _: rule.carrier.contract(graph, traces, entry)
    start, _ = link(graph, contract, ready, before.carry, xs, before.traces)
    _, (carries, outs) = scan(single, start, list(xs))
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
