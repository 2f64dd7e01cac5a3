"""The oracle of MDGL: two lanes, of which the live one reads each layer's own old activity."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed
from ..core._domains import fraction
from ._oracles_cell import (
    Gradients,
    LayeredCell,
    check_layered,
    gradient_of,
    replaced,
    sg,
    zeros_like,
)


def mdgl_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    kappa: float = 0.0,
    modulation: Callable[[PyTree], PyTree] = lambda params: params,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of MDGL. In the carried lane recurrent weights are cut; in the live lane, which
    the layers above and the readout see at this step only, the drive of each layer is

        drive(params, z below, sg own, 1) + (drive(sg M, 0, own, 0) - sg)

    with `own` the layer's old activity as the carried lane gives it. A leaky readout's memory of
    the layers below is cut.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        kappa: of explicit filters `F <- kappa F + z`, through which the readout reads the top
            layer's activity and each layer its own.
        modulation: from the parameters to M, with which the signal goes from neuron to neuron.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"] + own @ p["u"], lambda p, h, y: y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "u": jnp.ones((3, 3)), "o": jnp.ones((3, 1))}
    >>> xs, loss, carry = jnp.ones((2, 1, 2)), lambda out: out[:, 0], (jnp.zeros((1, 3)),)
    >>> gradients, losses = checks.mdgl_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()  # 1 at each step, and 3 over one synapse
    5.0
    """
    check_layered(cell)
    kappa = fraction("kappa", kappa)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        between = sg(modulation(params))

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, pasts, smooth = state
            kept, filters, z = [], [], x
            for layer, h, past in zip(cell.layers, carry, pasts, strict=False):
                own = layer.out(h)
                filters.append(kappa * past + own)
                still = layer.drive(params, sg(z), sg(own), 1.0)
                kept.append(layer.move(params, h, still))
                hop = layer.drive(between, zeros_like(z), filters[-1], 0.0)
                y = layer.drive(params, z, sg(own), 1.0)
                y = jax.tree.map(lambda y, hop: y + (hop - sg(hop)), y, hop)
                z = layer.out(layer.move(params, h, y))
            out = cell.readout(params, replaced(z, kappa * smooth + z))
            if cell.leak is not None:
                old = cell.leak * carry[-1]
                kept.append(old + cell.readout(params, sg(z)))
                out = old + out
            smooth = kappa * smooth + cell.layers[-1].out(kept[len(cell.layers) - 1])
            return (tuple(kept), filters, smooth), out

        rest = [jnp.zeros_like(layer.out(h)) for layer, h in zip(cell.layers, carry, strict=False)]
        return jax.lax.scan(one, (carry, rest, rest[-1]), xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)
