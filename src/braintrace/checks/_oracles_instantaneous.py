"""The oracle of rules without a trace."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, PyTree

from ..cell import Mask, Timed, sequence_length
from ..cell._arguments import checked_marks
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
