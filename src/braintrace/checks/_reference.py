"""The oracle of D-RTRL, which every other algorithm is a variation of."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import CellFunction, Mask, Reset, Timed, compile_cell, sequence_length
from ..core.step import prelude, step
from ..gradients import Gradients, bptt_gradient


def d_rtrl_oracle(
    cell: CellFunction,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., jax.Array],
    mask: Mask | None = None,
    reset: Reset | None = None,
    reduction: str = "mean",
    unroll_limit: int = 64,
    max_slots: int = 16,
    batch_axes: PyTree = None,
) -> Gradients:
    """The gradient that D-RTRL computes, by automatic differentiation over the whole sequence:
    `(gradients, losses)`.

    Every step is evaluated in two lanes from one carry. The *local* lane gives the next carry: what
    mixes positions is stopped, and parameters act through their sites. The *signal* lane gives the
    output: what mixes reads the old state stopped, and keeps all that came into being at this step.
    Reverse mode through the scan of the two lanes is, term by term, the sum over t of (the loss of
    step t) through (step t as it is) through (the local paths of all steps before).

    What it tests: traces, sensitivities, slots, site layouts, windows, masks and resets, for none
        of them exists here.
    What it does not test: the analysis. Which paths are local is read from the same `CellGraph`
    that the learner uses. That question is answered by `bptt_gradient` (exact parameters must equal
    it) and by oracles written by hand.

    Memory grows with the length of the sequence. Arguments, results and errors are those of
    `bptt_gradient`; `unroll_limit` and `max_slots` those of `braintrace.compile`.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> gradients, losses = braintrace.checks.d_rtrl_oracle(
    ...     cell, params, h, xs, loss_fn=lambda out: out.sum(-1), reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    6.125
    """
    sequence_length(xs)
    first = jax.tree.map(lambda v: v[0], xs)
    carry = jax.tree.map(jnp.asarray, carry)
    compiled = compile_cell(
        cell, params, carry, first, unroll_limit=unroll_limit, max_slots=max_slots
    )
    graph = compiled.graph

    def in_lanes(params: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        ready = prelude(graph, compiled.params.flatten(params, "params"))
        lanes = step(graph, ready, compiled.carry.apart(carry), compiled.x.flatten(x, "x"))
        return compiled.carry.together(lanes.local), compiled.out.unflatten(lanes.outs)

    options = {"mask": mask, "reset": reset, "reduction": reduction, "batch_axes": batch_axes}
    return bptt_gradient(in_lanes, params, carry, xs, *targets, loss_fn=loss_fn, **options)
