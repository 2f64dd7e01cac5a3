"""A window for carriers whose traces are products: what does not feed back is done for all its
steps at once.

    1  forward: the carry before each step, and the results of products on the way
       (loops over what feeds back alone)
    2  for all steps at once: entry a_t, drive delta_t and, where the carrier reads them,
       D_t and f_t, each step's own
    3  the traces, and the factors (x_t, c_t)    (elementwise)
    4  one weight product for each site

A step's signals are those of its own loss, so step 2 has no order in time.
"""

import contextlib
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..analysis import CellGraph
from ..jaxpr import DistributedScan, constant_results, evaluate, inline, needed, reader
from ..step import Step, feeds_back_at_a_cost, keeping_step, step, worth_keeping
from ..traces import ProductCarrier, every_drive, sensitivity, zero_nudges
from ._extra import with_signals
from ._online import reset_marks
from ._rule import Rule
from ._window import (
    Body,
    Gradients,
    added,
    differentiable_part,
    hidden_part,
    own_carry,
    window_gradient,
    with_hidden,
)

stop = jax.lax.stop_gradient

# elements of a state trace: above, a step is done in cache faster than a window's arrays pass
# through memory
_WIDEST = 4096


def is_worth_mapping(graph: CellGraph) -> bool:
    """Whether the steps of a window are faster mapped: they are small, or no product waits for the
    step before.
    """
    widest = max((s.y.size * sum(len(p.slots) for p in s.places) for s in graph.sites), default=0)
    return widest <= _WIDEST or not feeds_back_at_a_cost(graph)


def factored_window(
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
    """`window_gradient` for such a carrier: mapped where that pays and is possible."""
    if jax.tree.leaves(at)[0].shape[0] > 1 and is_worth_mapping(graph):
        bound = graph.bound(stop(graph.structure(ready)))
        with contextlib.suppress(
            NotImplementedError
        ):  # some operation does not know how to be mapped
            if found := mapped_gradient(
                bound, rule, body, ready, extra, total, carry, traces, (at, signals)
            ):
                return found
    return window_gradient(
        graph, rule, body, ready, extra, total, carry, traces, at, signals, keep_trace
    )


def mapped_gradient(
    graph: CellGraph,
    rule: Rule,
    body: Body,
    ready: Sequence[Any],
    extra: Any,
    total: Gradients,
    carry: Sequence[Any],
    traces: Any,
    at: Any,
) -> tuple[Gradients, list[Any], Any, Any] | None:
    """As `window_gradient`; None where the steps of `body` cannot be mapped. `at`: slices and
    signals, time first.
    """
    assert isinstance(rule.carrier, ProductCarrier)
    steps = jax.tree.leaves(at)[0].shape[0]
    kept = worth_keeping(graph)
    merge, live = differentiable_part(graph, ready)

    def recording(graph: CellGraph, ready: Any, carry: Any, xs: Any, nudges: Any) -> Step:
        new, outs, results = keeping_step(graph, ready, carry, xs, kept)
        return Step(new, new, outs, results)

    def forward(carry: list[Any], at: Any) -> tuple[list[Any], Any]:
        slices, signals = at
        carry = with_signals(graph, carry, signals)
        done = body(recording, stop(list(ready)), stop(extra), carry, [], slices)
        return list(done.step.local), (carry, done.step.data)

    trajectory = DistributedScan(forward, stop(list(carry)), at)
    if not trajectory.can_be_mapped:
        return None
    last, (carries, results) = trajectory(stop(list(carry)), at)

    def recalling(results: Any) -> Any:
        return functools.partial(step, known=dict(zip(kept, results, strict=True)))

    def objective(
        live: list[Any], extra: Any, hidden: list[Any], nudges: list[Any]
    ) -> tuple[Any, Any]:
        values = merge(live)

        def one(
            hidden: list[Any], nudges: list[Any], carry: list[Any], results: Any, slices: Any
        ) -> Any:
            done = body(
                recalling(results), values, extra, with_hidden(graph, carry, hidden), nudges, slices
            )
            return done.loss, (done.report, done.step.data, stop(done.xs))

        losses, found = jax.vmap(one)(hidden, nudges, carries, results, at[0])
        return losses.sum(), found

    primals = (live, extra, hidden_part(graph, carries), zero_nudges(graph, steps))
    value, pull, (reports, data, xs) = jax.vjp(objective, *primals, has_aux=True)
    of_live, of_extra, entry, drives = pull(jnp.ones_like(value))

    def slots(carry: list[Any], xs: list[Any], results: Any) -> Any:
        return sensitivity(
            graph, stop(list(ready)), carry, [x[None] for x in xs], evaluate=recalling(results)
        ).slots

    dynamics = (
        _over_steps(slots, list(own_carry(graph, carries)), xs, results)
        if rule.carrier.needs_dynamics
        else None
    )
    before = rule.carrier.init(graph) if traces is None else traces
    factors, after = rule.carrier.window_factors(
        graph, before, dynamics, entry, every_drive(graph, drives), data, reset_marks(graph, xs)
    )
    of_sites = [
        s.rule.weight_gradient_sum(x, c) for s, (x, c) in zip(graph.sites, factors, strict=True)
    ]
    of_live, of_extra = jax.tree.map(jnp.add, total, (of_live, of_extra))
    variables = [v for v in graph.prelude_results if v.differentiable]
    sums = added(graph, dict(zip(variables, of_live, strict=True)), of_sites)
    return ([sums[v] for v in variables], of_extra), last, after, reports


def _over_steps(function: Any, *arguments: Any) -> Any:
    """`function` of each step, stacked; what does not depend on the arguments as an array of
    numpy's, without a time axis.
    """
    slices = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), arguments)
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*slices)
    program = inline(closed)
    found: list[Any] = list(constant_results(program))
    moving = [k for k, v in enumerate(found) if v is None]

    def at_a_step(*values: Any) -> list[Any]:
        env = dict(zip(program.inputs, values, strict=True))
        evaluate(needed(program.equations, [program.outputs[k] for k in moving]), env)
        return [reader(env)(program.outputs[k]) for k in moving]

    for k, v in zip(moving, jax.vmap(at_a_step)(*jax.tree.leaves(arguments)), strict=True):
        found[k] = v
    return jax.tree.unflatten(jax.tree.structure(shape), found)
