"""Oracles of signals between neurons. MDGL: two lanes, of which the live one reads each layer's own
old activity. ModProp: signals sent back by the derivative of the drive, tap by tap.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed, split
from ..core._domains import finite, fraction, whole
from ._oracles_cell import (
    Gradients,
    Layer,
    LayeredCell,
    check_layered,
    gradient_of,
    nudged,
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
    modulation: Callable[[PyTree], PyTree] | None = None,
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
        modulation: None, or a function from the parameters to M, with which the signal goes from
            neuron to neuron.

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
        between = sg(params if modulation is None else modulation(params))

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


def modprop_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    leak: float,
    mu: float = 0.25,
    taps: int = 5,
    modulation: Callable[[PyTree], PyTree] | None = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of ModProp: that of `sum_t sum_k <sg(c_k), h_{t-k}>` by the parameters that act
    at step t - k itself, with

        c_0 = dL_t/dh_t,    c_{k+1} = leak c_k + mu d<c_k, drive(M, 0, own, 0)>/d own

    dL_t/dh_t is found by nudging the new states of step t alone.

    Args:
        cell: a `LayeredCell` whose layers have one state, of the shape of z and y; params, carry,
            xs, targets, loss_fn, mask and reduction as in `etrace_grad`.
        leak: of all layers.
        mu: the slope.
        taps: how many steps c goes back, the present one included.
        modulation: None, or a function from the parameters to M, with which the signal goes from
            neuron to neuron.

    Returns:
        `(gradients, losses)`.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, loss = jnp.ones((3, 1, 2)), lambda out: out[:, 0]
    >>> gradients, losses = checks.modprop_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, leak=0.5, taps=2, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()  # 1 + 1.5 + 1.5
    4.0
    """
    check_layered(cell)
    leak, mu, taps = fraction("leak", leak, one=True), finite("mu", mu), whole("taps", taps)

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed, still = sg(params), zeros_like(tuple(carry))
        between = fixed if modulation is None else sg(modulation(params))

        def forward(carry: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            x, target, weight = at
            new, out, read = nudged(cell, fixed, carry, x, still)
            loss_of = lambda out: split(loss_fn(out, *target), False, "loss_fn")[0]
            loss = lambda n: jnp.sum(weight * loss_of(nudged(cell, fixed, carry, x, n)[1]))
            return new, (read, jax.grad(loss)(still), out, new)

        everything = xs, list(targets), weights
        _, (read, signals, outs, news) = jax.lax.scan(forward, tuple(carry), everything)
        total = jnp.zeros(())
        for layer, (h, (z, own, _)), c in zip(cell.stateful, read, signals, strict=True):
            moved = lambda h, z, own, layer=layer: layer.move(
                params, h, layer.drive(params, z, own, 1.0)
            )
            acting = jax.vmap(moved)(h, z, own)

            def back(c: jax.Array, z: PyTree, own: PyTree, layer: Layer = layer) -> jax.Array:
                through = lambda own: layer.drive(between, zeros_like(z), own, 0.0)
                return leak * c + mu * jax.vjp(through, own)[1](c)[0]

            for k in range(taps):
                steps = c.shape[0] - min(k, c.shape[0])
                total += jnp.sum(sg(c)[k:] * acting[:steps])
                c = jax.vmap(back)(c, z, own)
        if cell.leak is None:
            outs = jax.vmap(lambda h: cell.readout(params, cell.layers[-1].out(h)))(news[-1])
        return (outs if cell.leak is None else sg(outs)), total

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)
