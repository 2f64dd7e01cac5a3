"""What the drivers set before each step: projected targets, and the weights of added terms."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import UsageError
from ..analysis import CellGraph
from ..signals import RATE_SCALE, TARGET

Weights = Float[Array, " T"] | Float[Array, "T B"]


def target_signal(
    graph: CellGraph, y_target: Array | None, timing: str | None = None
) -> dict[str, Array]:
    """The signals of one step; checks that a target is given where, and only where, the algorithm
    projects one.

    With `timing` 'sequence-end' a step may be without a target: its signal is zero.
    """
    shape = next((e.initial.shape for e in graph.extra if e.name == TARGET), None)
    got = "none" if y_target is None else f"an array of shape {jnp.shape(y_target)}"
    if shape is None and y_target is not None:
        raise UsageError(
            "The target of the step does not fit the algorithm.",
            got=got,
            expected="no y_target: this algorithm does not project targets",
        )
    if shape is None or (y_target is None and timing == "sequence-end"):
        return {}
    if y_target is None:
        raise UsageError(
            "The target of the step does not fit the algorithm.",
            got=got,
            expected=f"y_target of shape {shape}",
        )
    if jnp.size(y_target) != np.prod(shape) or jnp.shape(y_target)[-1:] != shape[-1:]:
        raise UsageError("The target has a wrong shape.", got=got, expected=f"shape {shape}")
    return {TARGET: y_target}


def driver_signals(
    graph: CellGraph, weights: Weights, y_target: Array | None, timing: str | None = None
) -> dict[str, Array]:
    """The signals of a sequence: targets and rate terms weighted as the losses are.

    `y_target` is (T, B, n_target); with `timing` 'sequence-end' (B, n_target), acting at the last
    step of each sample that counts.
    """
    steps, names = weights.shape[0], {e.name: e.initial.shape for e in graph.extra}
    signals: dict[str, Array] = {}
    at_end = timing == "sequence-end" and y_target is not None
    target_signal(graph, y_target if y_target is None or at_end else y_target[0], timing)
    if TARGET in names and y_target is not None:
        y = jnp.asarray(y_target).reshape(1 if at_end else steps, *names[TARGET])
        y = y * last_steps(weights) if at_end else y
        signals[TARGET] = y * weights.reshape(steps, -1, 1)
    if RATE_SCALE in names:
        (samples,) = names[RATE_SCALE]
        if weights.ndim == 1:
            weights = jnp.repeat(weights[:, None] / samples, samples, axis=1)
        if weights.shape[1] != samples:
            raise UsageError(
                "The losses are of another number of samples than the batch.",
                got=f"{weights.shape[1]} losses a step",
                expected=f"{samples}, or a scalar loss",
                do="say the batch to compile: batch_size, or batch=None for a scalar loss",
            )
        signals[RATE_SCALE] = weights
    return signals


def last_steps(weights: Weights) -> Float[Array, "T samples_or_1 1"]:
    """1 at the last step of each sample whose weight is not zero, 0 elsewhere."""
    counts = (weights != 0).reshape(weights.shape[0], -1)
    number = jnp.arange(weights.shape[0])[:, None]
    last = jnp.where(counts, number, -1).max(0)
    return (number == last).astype(weights.dtype)[..., None]
