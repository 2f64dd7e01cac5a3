"""The gradients that learners are measured against: BPTT, and the oracle of D-RTRL."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, PyTree

from ..cell import (
    CellFunction,
    Mask,
    Reset,
    Timed,
    check_driver,
    check_reset,
    common_size,
    compile_cell,
    reset_axes,
    restarted,
    sequence_length,
)
from ..core.analysis import BatchAxis
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
    carry, marks, axes = _checked(carry, xs, reset, batch_axes, targets, reduction)
    initial = carry if initial is None else initial

    def run(params: PyTree) -> PyTree:
        def advance(carry: PyTree, given: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
            x, marked = given
            return cell(
                params, carry if marked is None else restarted(initial, carry, marked, axes), x
            )

        return jax.lax.scan(advance, carry, (xs, marks))[1]

    return _gradient(run, params, xs, targets, loss_fn, mask, reduction)


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
    carry, marks, axes = _checked(carry, xs, reset, batch_axes, targets, reduction)
    first = jax.tree.map(lambda v: v[0], xs)
    compiled = compile_cell(
        cell, params, carry, first, unroll_limit=unroll_limit, max_slots=max_slots
    )
    graph, initial = compiled.graph, carry

    def run(params: PyTree) -> PyTree:
        ready = prelude(graph, compiled.params.flatten(params, "params"))

        def advance(
            carry: list[jax.Array], given: tuple[PyTree, PyTree]
        ) -> tuple[list[jax.Array], PyTree]:
            x, marked = given
            if marked is not None:
                tree = restarted(initial, compiled.carry.together(carry), marked, axes)
                carry = compiled.carry.apart(tree)
            lanes = step(graph, ready, carry, compiled.x.flatten(x, "x"))
            return lanes.local, compiled.out.unflatten(lanes.outs)

        return jax.lax.scan(advance, compiled.carry.apart(carry), (xs, marks))[1]

    return _gradient(run, params, xs, targets, loss_fn, mask, reduction)


def _checked(
    carry: PyTree,
    xs: Timed,
    reset: Reset | None,
    batch_axes: PyTree,
    targets: tuple[Timed, ...],
    reduction: str,
) -> tuple[PyTree, Bool[Array, "T B"] | None, list[BatchAxis | None]]:
    """The carry as arrays, the marks of the samples that are reset before each step, and where
    these samples lie.
    """
    carry = jax.tree.map(lambda v: v if isinstance(v, jax.Array) else jnp.asarray(v), carry)
    steps = sequence_length(xs)
    check_driver(steps, targets, reduction, None)
    if reset is None:
        return carry, None, []
    samples = jnp.shape(reset)[1] if jnp.ndim(reset) == 2 else common_size(carry)
    marks = check_reset(reset, steps, samples)
    return carry, marks, reset_axes(batch_axes, carry, marks.shape[1])


def _gradient(
    run: Callable[[PyTree], PyTree],
    params: PyTree,
    xs: Timed,
    targets: tuple[Timed, ...],
    loss_fn: Callable[..., jax.Array],
    mask: Mask | None,
    reduction: str,
) -> Gradients:
    leaves, structure = jax.tree.flatten(params)
    live = [k for k, v in enumerate(leaves) if jnp.issubdtype(jnp.result_type(v), jnp.inexact)]
    tree_of = lambda values: structure.unflatten([values.get(k) for k in range(len(leaves))])
    gradients, losses = gradient_of(
        lambda chosen, _: (run(tree_of(dict(enumerate(leaves)) | chosen)), 0.0),
        {k: jnp.asarray(leaves[k]) for k in live},
        xs,
        targets,
        loss_fn,
        mask,
        reduction,
    )
    return tree_of(gradients), losses
