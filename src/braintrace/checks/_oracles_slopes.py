"""The oracle of S-TLLR: two linear proxies stand for the derivative of each layer's activity."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed
from ..core._domains import finite, fraction
from ._oracles_cell import (
    Gradients,
    LayeredCell,
    check_layered,
    gradient_of,
    replaced,
    sg,
    zeros_like,
)
from ._oracles_filtered import filtered, traces_of


def s_tllr_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    lambdas: tuple[float, float] = (0.75, 0.2),
    alphas: tuple[float, float] = (1.0, -1.0),
    feedback: PyTree | None = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of S-TLLR. Old states are constants, and what the layers above, the readout and
    the loss differentiate of a layer is

        sg(Psi) (alpha_pre drive(params, filtered inputs) + drive(sg params, inputs))
          + alpha_post sg(P) drive(params, sg inputs)

    with Psi = dz/dy and P its leaky sum before this step. What is no weight operation (biases, the
    neuron's own parameters) learns from its own step.

    Args:
        cell: a `LayeredCell` of layers whose y has the shape of z; params, carry, xs, targets,
            loss_fn, mask and reduction as in `etrace_grad`.
        lambdas: (lambda_pre, lambda_post).
        alphas: (alpha_pre, alpha_post).
        feedback: None, or parameters with which the readout is run in the backward pass.

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
    >>> gradients, losses = checks.s_tllr_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, lambdas=(0.5, 0.2), reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()  # 1 + 1.5 - 1
    1.5
    """
    check_layered(cell)
    (l_pre, l_post), (a_pre, a_post) = lambdas, alphas
    l_pre, l_post = fraction("lambda_pre", l_pre, one=True), fraction("lambda_post", l_post)
    a_pre, a_post = finite("alpha_pre", a_pre), finite("alpha_post", a_post)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)
        layers, top = cell.stateful, fixed if feedback is None else sg(feedback)

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, traces, slopes = sg(state)
            new, kept, past, z, seen = [], [], [], x, x
            for layer, h, e, p in zip(layers, carry, traces, slopes, strict=False):
                inputs = (sg(z), layer.out(h), jnp.ones(()))
                e = filtered(e, inputs, l_pre, False)
                y = layer.drive(fixed, *inputs)
                new.append(layer.move(fixed, h, y))
                z = layer.out(new[-1])
                act = lambda params, y, layer=layer, h=h: layer.out(layer.move(params, h, y))
                (slope,) = jax.vjp(partial(act, fixed), y)[1](jnp.ones_like(z))
                without = lambda *v, layer=layer: layer.drive(params, *v, 0.0)
                bias = layer.drive(params, *inputs) - without(*inputs[:2])
                learned = act(params, replaced(y, bias))
                below = layer.drive(fixed if layer in cell.layers else top, seen, *inputs[1:])
                learned += slope * (a_pre * without(*e[:2]) + below)
                learned += a_post * p * without(*inputs[:2])
                seen = replaced(z, learned)
                kept.append(e)
                past.append(l_post * p + slope)
            if cell.leak is None:
                back = cell.readout(top, seen)
                seen = cell.readout(params, sg(z)) + (back - sg(back))
            return (tuple(new), kept, past), seen

        traces = traces_of(layers, carry, xs)
        slopes = [zeros_like(layer.out(h)) for layer, h in zip(layers, carry, strict=False)]
        return jax.lax.scan(one, (carry, traces, slopes), xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)
