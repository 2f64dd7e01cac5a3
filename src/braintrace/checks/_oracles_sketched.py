"""The oracle of SK-RTRL: whole influence matrices, and a singular value decomposition at each
step.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PyTree

from ..cell import Mask, Timed
from ..core._domains import whole
from ._oracles_cell import Gradients, LayeredCell, check_layered, gradient_of, sg
from ._oracles_layered import kept_lane


def sk_rtrl_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    rank: int,
    slopes: PyTree = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of SK-RTRL.

    For each sample the influence of all parameters on all the state, as a matrix in two terms: that
    of D-RTRL's lane, and the best approximation of a given rank to everything else. Each step
    starts from the state plus the influence times the parameters' change, and the loss is
    differentiated through the whole of it.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        rank: as in `SK_RTRL`.
        slopes: the derivative of what the step reads by each parameter, element by element, as a
            tree like params; None where it reads the parameters themselves. What is best is
            measured on the weights that the step reads.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, loss = jnp.ones((2, 1, 2)), lambda out: out[:, 0]
    >>> gradients, losses = checks.sk_rtrl_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, rank=1, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    2.5
    """
    check_layered(cell)
    rank = whole("rank", rank, least=0)

    def run(params: PyTree, weights: Array) -> tuple[PyTree, PyTree]:
        flat, unravel = ravel_pytree(params)
        slope = jnp.ones_like(flat) if slopes is None else ravel_pytree(slopes)[0]
        apart = lambda tree: jax.tree.map(lambda v: v[None], tree)

        def step(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, local, rest = state

            def one(carry: PyTree, x: PyTree, local: Array, rest: Array) -> PyTree:
                h, together = ravel_pytree(carry)
                h = sg(h) + (local + rest) @ (flat - sg(flat))
                new, out = cell(params, apart(together(h)), apart(x))

                def moved(cut: bool, h: Array, flat: Array) -> Float[Array, " n"]:
                    given = unravel(flat), apart(together(h)), apart(x)
                    return ravel_pytree(kept_lane(cell, *given) if cut else cell(*given)[0])[0]

                at = sg(h), sg(flat)
                d, i = jax.jacrev(lambda *at: moved(False, *at), (0, 1))(*at)
                d_own, i_own = jax.jacrev(lambda *at: moved(True, *at), (0, 1))(*at)
                own = d_own @ local + i_own
                left_out = d @ (local + rest) + i - own
                u, s, v = jnp.linalg.svd(sg(left_out) / slope, full_matrices=False)
                best = (u[:, :rank] * s[:rank]) @ v[:rank] * slope
                return jax.tree.map(lambda v: v[0], (new, out)), sg(own), sg(best)

            (new, out), local, rest = jax.vmap(one)(carry, x, local, rest)
            return (new, local, rest), out

        samples = jax.tree.leaves(carry)[0].shape[0]
        size = ravel_pytree(carry)[0].size // samples
        zero = jnp.zeros((samples, size, flat.size), flat.dtype)
        return jax.lax.scan(step, (carry, zero, zero), xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)
