"""The gradients that learners are measured against: BPTT, and the oracle of D-RTRL."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import (
    CellFunction,
    Mask,
    Reset,
    Timed,
    check_reset,
    common_size,
    compile_cell,
    merged,
    reset_axes,
    restarted,
    sequence_length,
)
from ..cell._arguments import checked_marks
from ..core._precision import narrowed, widened
from ..core.step import prelude, step
from ._oracles_cell import Gradients, gradient_of


def bptt_gradient(
    cell: CellFunction,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., jax.Array],
    mask: Mask | None = None,
    reset: Reset | None = None,
    reduction: str = "mean",
    initial: PyTree = None,
    batch_axes: PyTree = None,
) -> Gradients:
    """The gradient of a sequence by backpropagation through time: `(gradients, losses)`.

    Reverse-mode differentiation of `lax.scan` over the function `cell` itself. No part of the
    analysis takes part in it, so it is independent of everything that a learner does. Memory grows
    with the length of the sequence.

    Args:
        cell: `(params, carry, x) -> (carry, out)`.
        params: the parameters; leaves that are not differentiable get None.
        carry: the carry before the first step.
        xs: inputs, time on axis 0.
        *targets: further sequences, handed to `loss_fn` step by step.
        loss_fn: `loss_fn(out_t, *target_t)`: a scalar, or one value per sample (B,).
        mask: weights of the losses, (T,) or (T, B), as in `etrace_grad`.
        reset: (T, B) bool, as in `etrace_grad`.
        reduction: 'mean' or 'sum', as in `etrace_grad`.
        initial: the carry that `reset` goes back to; by default `carry`.
        batch_axes: a tree like the carry: the axis of the samples that `reset` marks, or None for
            an array that it leaves as it is. By default axis 0 of the arrays with their number
            there.

    Returns:
        The gradients (a tree like `params`) and the losses, (T,) or (T, B), not weighted.

    Raises:
        UsageError: for sequences, a mask, a reset or a reduction that `etrace_grad` would refuse.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> gradients, losses = braintrace.checks.bptt_gradient(
    ...     cell, params, h, xs, loss_fn=lambda out: out.sum(-1), reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    6.125
    """
    carry, marks, axes = jax.tree.map(jnp.asarray, carry), None, []
    if reset is not None:
        reset = checked_marks(reset)
        samples = jnp.shape(reset)[1] if jnp.ndim(reset) == 2 else common_size(carry)
        marks = check_reset(reset, sequence_length(xs), samples)
        axes = reset_axes(batch_axes, carry, marks.shape[1])
    initial = carry if initial is None else initial
    inexact = lambda v: jnp.asarray(v) if jnp.issubdtype(jnp.result_type(v), jnp.inexact) else None
    live = jax.tree.map(inexact, params)

    def run(trained: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        def advance(carry: PyTree, given: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            x, marked = given
            if marked is not None:
                carry = restarted(initial, carry, marked, axes)
            return cell(merged(narrowed(trained, live), params), carry, x)

        return jax.lax.scan(advance, carry, (xs, marks))[1], 0.0

    # the gradients of the steps add up in a wide dtype, and are then the parameters'
    given = run, widened(live), xs, targets, loss_fn, mask, reduction
    gradients, losses = gradient_of(*given)
    return narrowed(gradients, live), losses


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
