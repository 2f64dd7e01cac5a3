"""Oracles in two lanes: D-RTRL, e-prop, RFLO, OSTL with and without recurrence, OSTTP.

Each step is evaluated twice from one carried state. The carried lane gives the next state; what
comes from the layer below is stopped in it. The live lane gives the activity that the layers above,
the readout and the loss see at this step only. So credit goes through time inside a layer, then up
through the layers at the time of the loss, and never up and then through time. `cut` says what
happens to a layer's own old activity on its way through the recurrent weights.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed
from ._oracles_cell import Gradients, LayeredCell, gradient_of, sg

Feedback = Callable[[jax.Array], Any]


def layered_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    recurrent: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of D-RTRL and of OSTL without recurrence; with `recurrent`, that of OSTL with
    recurrence.

    Reverse mode through the two lanes, with the recurrent weights cut (D-RTRL) or live within each
    layer (OSTL). A leaky
    readout is a layer like the others: its memory of the layers below is cut.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        recurrent: whether the layer's own old activity stays live.

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
    >>> gradients, losses = checks.layered_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    2.5
    """

    def run(params: PyTree, weights: PyTree) -> tuple[PyTree, PyTree]:
        def one(carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            kept, live, _ = lanes(cell, params, carry, x, recurrent)
            return with_readout(cell, params, kept, carry, live, sg(live), cell.readout)

        return jax.lax.scan(one, carry, xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def eprop_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    kappa: float | None = None,
    feedback: Feedback | None = None,
    firing_rate: tuple[float, float] | None = None,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of e-prop: recurrent weights cut, and the readout's memory live.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        kappa: None to leave the cell's own leaky readout live, which is the published program; or a
            number to read the top layer's activity through an explicit filter `F <- kappa F + z`
            instead.
        feedback: None, or a function of the step's number that gives the parameters with which the
            readout is run in the backward pass, for random and adaptive feedback.
        firing_rate: None, or (target, strength), as in `EProp`. It needs a loss with one value per
            lane.

    Returns:
        `(gradients, losses)`. RFLO is the same program with `kappa=0` and a feedback.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> layer = checks.Layer(
    ...     lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: h
    ... )
    >>> cell = checks.LayeredCell((layer,), lambda p, z: z @ p["o"])
    >>> params, carry = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}, (jnp.zeros((1, 3)),)
    >>> xs, loss = jnp.ones((2, 1, 2)), lambda out: out[:, 0]
    >>> gradients, losses = checks.eprop_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, kappa=0.5, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    3.0
    """
    steps = jnp.arange(jax.tree.leaves(xs)[0].shape[0])

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        def one(state: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            carry, filtered, means = state
            x, step, weight = at
            kept, live, live_all = lanes(cell, params, carry, x, recurrent=False)
            top = cell.layers[-1].out(kept[-1])
            read = cell.readout if feedback is None else reading(cell.readout, feedback(step))
            if kappa is None:
                seen, remembered = live, top
            else:
                now = kappa * filtered + live
                seen, remembered = sg(live) + (now - sg(now)), sg(live)
                filtered = kappa * filtered + top
            new, out = with_readout(cell, params, kept, carry, seen, remembered, read)
            means = [m + (sg(z) - m) / (step + 1) for m, z in zip(means, live_all, strict=True)]
            rate = 0.0 if firing_rate is None else rate_term(live_all, means, weight, *firing_rate)
            return (new, filtered, means), (out, rate)

        rest = [jnp.zeros_like(layer.out(h)) for layer, h in zip(cell.layers, carry, strict=False)]
        outs, rates = jax.lax.scan(one, (carry, rest[-1], rest), (xs, steps, weights))[1]
        return outs, jnp.sum(rates)

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def osttp_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    y_target: jax.Array,
    B_list: Any,
    exact: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of OSTTP: that of the linear surrogate `-sum_t sum_l <y*_t B_l, z_l>` with the
    inputs of each layer stopped.

    The readout alone learns from the loss.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        y_target: (T, B, n_target), zero where no target acts.
        B_list: a matrix (n_target, n_layer) for each layer.
        exact: whether the recurrence within each layer stays live (`scope='exact'`).

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
    >>> gradients, losses = checks.osttp_oracle(
    ...     cell,
    ...     params,
    ...     carry,
    ...     xs,
    ...     loss_fn=loss,
    ...     y_target=jnp.ones((2, 1, 1)),
    ...     B_list=[jnp.ones((1, 3))],
    ...     reduction="sum",
    ... )
    >>> gradients["w"][0, 0].item()
    -2.5
    """

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        def one(carry: PyTree, at: PyTree) -> tuple[PyTree, PyTree]:
            x, y, weight = at
            kept, surrogate = [], 0.0
            for layer, h, B in zip(cell.layers, carry, B_list, strict=False):
                h = layer.move(params, h, layer.drive(params, x, _cut(layer.out(h), exact), 1.0))
                kept.append(h)
                z = layer.out(h)
                signal = (y * weight.reshape(-1, 1)) @ B
                surrogate -= jnp.vdot(signal.reshape(z.shape), z)
                x = sg(z)
            new, out = with_readout(cell, params, kept, carry, x, x, cell.readout)
            return new, (out, surrogate)

        outs, surrogates = jax.lax.scan(one, carry, (xs, y_target, weights))[1]
        return outs, jnp.sum(surrogates)

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def lanes(
    cell: LayeredCell, params: PyTree, carry: PyTree, x: PyTree, recurrent: bool
) -> tuple[list[jax.Array], Any, list[jax.Array]]:
    """(new states of the carried lane, live activity of the top layer, live activities of all)."""
    kept, live, activities = [], x, []
    for layer, h in zip(cell.layers, carry, strict=False):
        own = _cut(layer.out(h), recurrent)
        kept.append(layer.move(params, h, layer.drive(params, sg(live), own, 1.0)))
        live = layer.out(layer.move(params, h, layer.drive(params, live, own, 1.0)))
        activities.append(live)
    return kept, live, activities


def with_readout(
    cell: LayeredCell,
    params: PyTree,
    kept: list[jax.Array],
    carry: PyTree,
    live: PyTree,
    remembered: PyTree,
    read: Callable[..., PyTree],
) -> tuple[PyTree, PyTree]:
    """(the carry, the output) with the readout's state, which remembers `remembered` where it has
    one.
    """
    if cell.leak is None:
        return tuple(kept), read(params, live)
    old = cell.leak * carry[-1]
    return (*kept, old + read(params, remembered)), old + read(params, live)


def reading(readout: Callable[..., PyTree], feedback: PyTree) -> Callable[..., PyTree]:
    """The readout, whose backward pass reaches the activity through the parameters `feedback`."""

    @jax.custom_vjp
    def read(params: PyTree, feedback: PyTree, z: PyTree) -> PyTree:
        return readout(params, z)

    def backward(kept: PyTree, cotangent: PyTree) -> PyTree:
        params, feedback, z = kept
        of_params = jax.vjp(lambda p: readout(p, z), params)[1](cotangent)[0]
        of_z = jax.vjp(lambda z: readout(feedback, z), z)[1](cotangent)[0]
        return of_params, jax.tree.map(jnp.zeros_like, feedback), of_z

    read.defvjp(lambda p, b, z: (readout(p, z), (p, b, z)), backward)
    return lambda params, z: read(params, feedback, z)


def rate_term(
    active: list[jax.Array],
    means: list[jax.Array],
    weight: jax.Array,
    target: float,
    strength: float,
) -> jax.Array:
    """`strength sum_j (f_j - target) z_j`, f the mean of lanes and of the steps so far, weighed
    lane by lane.
    """
    total = jnp.zeros(())
    for z, mean in zip(active, means, strict=True):
        excess = strength * (mean.mean(0, keepdims=True) - target)
        total += jnp.sum(excess * z * weight.reshape(-1, *[1] * (z.ndim - 1)))
    return total


def _cut(own: PyTree, recurrent: bool) -> PyTree:
    return own if recurrent else sg(own)
