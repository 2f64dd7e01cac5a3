"""Backpropagation through time: the gradient that every other is compared with."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..cell import (
    CellFunction,
    Mask,
    Reset,
    Timed,
    check_driver,
    check_loss,
    check_reset,
    common_size,
    merged,
    reset_axes,
    restarted,
    sequence_length,
    split,
    weigh,
    weights_of,
)
from ..cell._arguments import checked_marks, checked_mask
from ..cell._user_step import OF_OUTPUT, check_takes
from ..core._precision import narrowed, widened

#: Gradients, and the losses that are not weighted.
Gradients = tuple[PyTree, Float[Array, "T *B"]]


def gradient_of(
    run: Callable[[PyTree, jax.Array], tuple[PyTree, PyTree]],
    params: PyTree,
    xs: Timed,
    targets: tuple[Timed, ...],
    loss_fn: Callable[..., PyTree],
    mask: Mask | None,
    reduction: str,
) -> Gradients:
    """`(gradients, losses)` of `run(params, weights) -> (outs, surrogate)`: the weighted losses of
    outs plus the surrogate.
    """
    steps = sequence_length(xs)
    check_driver(steps, targets, reduction, None)
    check_loss(loss_fn, None, 1 + len(targets), "")
    check_takes("loss_fn", loss_fn, 1 + len(targets), OF_OUTPUT)
    mask = None if mask is None else checked_mask(mask, reduction)

    losses_of = jax.vmap(lambda out, target: split(loss_fn(out, *target), False, "loss_fn")[0])

    def total(params: PyTree) -> tuple[jax.Array, jax.Array]:
        shape = jax.eval_shape(lambda p: losses_of(run(p, jnp.ones(steps))[0], targets), params)
        loss = jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype)
        weights = weights_of(mask, loss, steps, reduction)
        outs, surrogate = run(params, weights)
        losses = losses_of(outs, targets)
        return weigh(losses, weights) + surrogate, losses

    return jax.grad(total, has_aux=True)(params)


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
