"""Samples along axis 0: masks weigh their losses, a reset gives them their initial state."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PyTree

from ..core._compat import is_differentiable, is_key, is_traced
from ..core._errors import UsageError
from ..core._precision import wide
from ..core.analysis import BatchAxis
from ._arguments import Mask
from ._loss import check_samples


def restarted(
    initial: PyTree, carry: PyTree, marks: Bool[Array, "B"], axes: Sequence[BatchAxis | None]
) -> PyTree:
    """`carry` with the initial values, as constants, of the samples that are marked; `axes` says
    where each leaf has its samples.
    """
    leaves, structure = jax.tree.flatten(carry)
    for k, (start, axis) in enumerate(zip(jax.tree.leaves(initial), axes, strict=True)):
        if axis is not None:
            marked = axis.along(marks, leaves[k].ndim)
            leaves[k] = jnp.where(marked, jax.lax.stop_gradient(start), leaves[k])
    return structure.unflatten(leaves)


def common_size(carry: PyTree) -> int | None:
    """The size of axis 0 that the arrays of a carry share, or None."""
    sizes = {v.shape[0] for v in jax.tree.leaves(carry) if len(v.shape) > 0 and not is_key(v.dtype)}
    return sizes.pop() if len(sizes) == 1 else None


def weights_of(
    mask: Mask | None, losses: jax.ShapeDtypeStruct, steps: int, reduction: str
) -> Float[Array, "T *B"]:
    """The factor of each step's loss (or of each sample's), so that their weighted sum is the
    reduced loss.

    `losses` is the shape of one step's loss: () or (B,).
    """
    check_samples(losses, None)
    shape = (steps, *losses.shape)
    weights = jnp.ones(shape) if mask is None else jnp.asarray(mask)
    if weights.shape != shape:
        raise UsageError(
            "The mask does not fit the loss.",
            got=f"mask of shape {weights.shape}, loss of shape {losses.shape} a step",
            expected=f"a mask of shape {shape}",
            do="for a mask (T, B) return one loss per sample; for a mask (T,) return a scalar loss",
        )
    weights = weights.astype(wide(losses.dtype))
    return weights if reduction == "sum" else weights / _divisor(weights)


def scale_of(
    mask: Mask | None, losses: jax.ShapeDtypeStruct, steps: int, reduction: str
) -> Float[Array, ""]:
    """What a reduction makes of a loss of weight 1; `losses` as in `weights_of`."""
    weights = weights_of(mask, losses, steps, "sum")
    return jnp.ones((), weights.dtype) if reduction == "sum" else 1 / _divisor(weights)


def _divisor(weights: Float[Array, "T *B"]) -> Float[Array, ""]:
    """What the mean of losses divides by."""
    total = weights.sum()
    return jnp.where(total == 0, 1, total)


def weigh(loss: Float[Array, "*B"], weight: Float[Array, "*B"]) -> Float[Array, ""]:
    """The weighted sum of a step's losses; what has weight zero does not count, not even when it is
    NaN.
    """
    return jnp.sum(jnp.where(weight != 0, loss, 0) * weight)


@functools.partial(jax.jit, static_argnums=2)
def reduced(losses: Float[Array, "T *B"], mask: Mask | None, reduction: str) -> Float[Array, ""]:
    """The reduced loss of a sequence, from those of its steps, (T,) or (T, B)."""
    step = jax.ShapeDtypeStruct(losses.shape[1:], losses.dtype)
    return weigh(losses, weights_of(mask, step, losses.shape[0], reduction))


def masked(losses: Float[Array, "T *B"], mask: Mask) -> Float[Array, "T *B"]:
    """The losses times their weights; zero where the weight is, whatever the loss is there."""
    weights = jnp.asarray(mask, losses.dtype)
    return jnp.where(weights != 0, losses, 0) * weights


def without_padding(
    values: PyTree, weight: Float[Array, "*B"], axes: Sequence[BatchAxis | None]
) -> PyTree:
    """What a step reads, with zeros for what is not finite where its loss has weight zero.

    `axes` says where each leaf has the samples; what has none counts where the loss of any does.
    """
    leaves, structure = jax.tree.flatten(values)
    for k, (value, axis) in enumerate(zip(leaves, axes, strict=True)):
        if is_differentiable(value.dtype):
            unread = weight == 0
            if axis is None or unread.shape != (axis.size,):
                unread = unread.all()
            else:
                unread = axis.along(unread, jnp.ndim(value))
            leaves[k] = jnp.where(unread & ~jnp.isfinite(value), 0, value)
    return structure.unflatten(leaves)


@jax.custom_vjp
def shield(out: jax.Array, weight: jax.Array) -> jax.Array:
    """`out`, whose cotangent is never NaN or infinite where the loss has weight zero (`sqrt` at 0,
    say: 0 times infinity).
    """
    return out


def shielded(outs: list[jax.Array], weight: jax.Array, mask: Mask | None) -> list[jax.Array]:
    """The outputs that a masked loss reads."""
    if mask is None:
        return outs
    return [shield(v, weight) if is_differentiable(v.dtype) else v for v in outs]


def _shield_backward(dead: jax.Array, cotangent: jax.Array) -> tuple[jax.Array, None]:
    by_sample = dead.ndim == 1 and cotangent.shape[:1] == dead.shape
    ignored = dead.reshape(dead.shape + (1,) * (cotangent.ndim - 1)) if by_sample else dead.all()
    return jnp.where(ignored & ~jnp.isfinite(cotangent), 0, cotangent), None


shield.defvjp(lambda out, weight: (out, weight == 0), _shield_backward)


def place(step: int, *sample: int) -> str:
    """A step, or a sample at a step, in the words of a message."""
    return f"step {step}" + (f", sample {sample[0]}" if sample else "")


def check_finite(losses: Float[Array, "T *B"], mask: Mask | None) -> None:
    """Eagerly: name the first step whose loss is not finite."""
    if is_traced(losses) or is_traced(mask):
        return
    losses, mask = jax.device_get((losses, mask))
    bad = ~np.isfinite(losses)
    if mask is not None:
        bad &= mask != 0
    if bad.any():
        at = tuple(int(k) for k in np.argwhere(bad)[0])
        raise UsageError(
            "The loss is not finite.",
            got=f"{losses[at]} at {place(*at)}",
            expected="finite losses",
            do="look at the loss function and at the outputs of that step (etrace_evolve returns "
            "them); the learner and the model are as before the call",
        )
