"""Oracles of the rules with a presynaptic trace or a postsynaptic estimate: OTTT, OTPE, F-OTPE.

They replace derivatives: `value + (proxy - stop_gradient(proxy))` has the value of one program and
    the derivative of another.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed
from ._oracles_cell import (
    Gradients,
    Layer,
    LayeredCell,
    climbed,
    filtered,
    gradient_of,
    replaced,
    sg,
    traces_of,
)


def ottt_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    leak: float,
    bias_trace: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of OTTT, as its published code computes it: old states are constants, and each
    weight operation is run once on the filtered inputs for its weights and once on the inputs as
    they are for the layers below.

    Args:
        cell: a `LayeredCell`; params, carry, xs, targets, loss_fn, mask and reduction as in
            `etrace_grad`.
        leak: of the presynaptic traces.
        bias_trace: whether the constant 1 is filtered too.

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
    >>> gradients, losses = checks.ottt_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, leak=0.5, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    2.5
    """

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, traces = sg(state)
            kept, old = [], iter(traces)

            def move(layer: Layer, h: PyTree, z: PyTree) -> PyTree:
                own = layer.out(h)
                kept.append(filtered(next(old), (z, own, jnp.ones(())), leak, bias_trace))
                of_weights = layer.drive(params, *kept[-1])
                of_inputs = layer.drive(fixed, z, own, 1.0)
                value = layer.drive(params, z, own, 1.0)
                y = replaced(value, jax.tree.map(jnp.add, of_weights, of_inputs))
                return layer.move(params, h, y)

            new, out = climbed(cell, params, carry, x, move)
            return (new, kept), out

        start = (carry, traces_of(cell.stateful, carry, xs))
        return jax.lax.scan(one, start, xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def otpe_oracle(
    cell: LayeredCell,
    params: PyTree,
    carry: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree],
    leak: float,
    approximate: bool = False,
    mask: Mask | None = None,
    reduction: str = "mean",
) -> Gradients:
    """The gradient of OTPE, or with `approximate` of F-OTPE, by a proxy of each layer's activity.

    What the layer above and the readout differentiate is, with R the leaky sum of the activity and
    g the leaky mean of dz/dy,

        z + (R - sg R)                                               the own weights (OTPE), or
          sg(g) (drive(params, twice filtered inputs) - sg)          the own weights (F-OTPE)
          + sg(g) (drive(sg params, proxy of the layer below) - sg)

    Args:
        cell: a `LayeredCell` of layers whose y has the shape of z; params, carry, xs, targets,
            loss_fn, mask and reduction as in `etrace_grad`.
        leak: of the membranes.
        approximate: whether it is F-OTPE.

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
    >>> gradients, losses = checks.otpe_oracle(
    ...     cell, params, carry, xs, loss_fn=loss, leak=0.5, reduction="sum"
    ... )
    >>> gradients["w"][0, 0].item()
    3.0
    """

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, states, top, count = state
            new, kept, z, proxy = [], [], x, x
            for layer, h, at in zip(cell.layers, carry, states, strict=False):
                total, mean, once, twice = at
                lowest = not new
                own = sg(layer.out(h))
                settled = lambda p, y, layer=layer, h=h: layer.out(layer.move(p, sg(h), y))
                y = layer.drive(params, sg(z), own, 1.0)
                new.append(layer.move(params, h, y))
                active = layer.out(new[-1])
                total = leak * total + active
                once = filtered(once, (z, own, jnp.ones(())), leak, False)
                twice = filtered(twice, once, leak, False)
                if not lowest or approximate:
                    pull = jax.vjp(partial(settled, fixed), sg(y))[1]
                    (slope,) = pull(jnp.ones_like(active))
                    mean = sg(leak * count * mean + slope) / (leak * count + 1)
                learned = total
                if approximate:  # biases and the neuron's own parameters learn from their own step
                    learned = mean * layer.drive(params, *twice[:2], 0.0)
                    biases = y - layer.drive(params, sg(z), own, 0.0)
                    learned += settled(params, replaced(y, biases))
                seen = replaced(active, learned)
                if not lowest:
                    driven = layer.drive(fixed, proxy, own, 1.0)
                    seen = seen + mean * (driven - sg(driven))
                kept.append((total, mean, once, twice))
                z, proxy = active, seen
            out, seen = cell.readout(params, sg(z)), cell.readout(fixed, proxy)
            if cell.leak is not None:
                top, out = leak * top + sg(z), cell.leak * carry[-1] + out
                if approximate:  # the readout's weights have a filtered input too
                    out = replaced(out, cell.readout(params, top))
                new.append(out)
            after = sg(tuple(new)) if approximate else tuple(new)
            return (after, kept, top, leak * count + 1), out + (seen - sg(seen))

        traces = traces_of(cell.layers, carry, xs)
        states = [(trace[1], trace[1], trace, trace) for trace in traces]
        start = carry, states, traces[-1][1], jnp.zeros(())
        return jax.lax.scan(one, start, xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)
