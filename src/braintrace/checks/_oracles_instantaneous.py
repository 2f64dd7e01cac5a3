"""The oracles of rules without a trace."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PyTree

from ..cell import Mask, Timed, sequence_length
from ..cell._arguments import checked_marks
from ..core._domains import whole
from ..core._errors import UsageError
from ._oracles_cell import Gradients, check_function, gradient_of, sg


def instantaneous_oracle(
    cell: Callable[..., PyTree],
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    chosen: Bool[np.ndarray, " T"] | None = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The instantaneous gradient, and that of SLTT: that of BPTT with the carry stopped in front of
    each step.

    Args:
        cell: a function `(params, carry, x) -> (carry, out)`; params, carry, xs, targets, loss_fn,
            mask and reduction as in `etrace_grad`.
        chosen: (T,) bool, the steps whose outputs are differentiated; by default all.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, xs = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> loss = lambda out: out.sum(-1)
    >>> gradients, losses = checks.instantaneous_oracle(cell, w, h, xs, loss_fn=loss)
    >>> gradients[0, 0].item(), losses[1, 0].item()
    (1.0, 9.0)
    """
    check_function("cell", cell)
    steps = sequence_length(xs)
    marks = jnp.ones(steps, bool) if chosen is None else checked_marks(chosen)
    if marks.shape != (steps,):
        got, expected = f"shape {marks.shape}", f"shape {(steps,)}"
        raise UsageError("Invalid chosen.", got=got, expected=expected)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, jax.Array]:
        def one(carry: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            x, mark = at
            carry, out = cell(params, sg(carry), x)
            return carry, jax.tree.map(lambda v: jnp.where(mark, v, sg(v)), out)

        return jax.lax.scan(one, carry, (xs, marks))[1], jnp.zeros(())

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def dni_oracle(
    cell: Callable[..., PyTree],
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    estimate: Callable[[PyTree], PyTree],
    chunk_size: int = 1,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient with synthetic gradients: that of BPTT inside of chunks, whose entry is stopped
    and at whose exit the inner product of the carry with an estimate, a constant, is added to the
    loss.

    Args:
        cell: a function `(params, carry, x) -> (carry, out)`; params, carry, xs, targets, loss_fn,
            mask and reduction as in `etrace_grad`.
        estimate: `estimate(carry)`, a tree like it: the gradient of what follows, in the reduced
            loss.
        chunk_size: steps of a chunk; the last one may be shorter.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, xs = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> given = {"loss_fn": lambda out: out.sum(-1), "reduction": "sum"}
    >>> gradients, _ = checks.dni_oracle(cell, w, h, xs, estimate=jnp.ones_like, **given)
    >>> gradients[0, 0].item()  # of each of 4 steps 1, and what is said to follow
    8.0
    """
    check_function("cell", cell)
    check_function("estimate", estimate)
    steps, size = sequence_length(xs), whole("chunk_size", chunk_size)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, jax.Array]:
        now, added, parts = carry, jnp.zeros(()), []
        for start in range(0, steps, size):
            part = jax.tree.map(lambda v, at=start: v[at : at + size], xs)
            now, outs = jax.lax.scan(lambda h, x: cell(params, h, x), sg(now), part)
            pairs = zip(jax.tree.leaves(now), jax.tree.leaves(estimate(now)), strict=True)
            added += sum((sg(m) * h).sum() for h, m in pairs)
            parts.append(outs)
        return jax.tree.map(lambda *outs: jnp.concatenate(outs), *parts), added

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)
