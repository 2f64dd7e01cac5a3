"""Oracles of the rules with a presynaptic trace or a postsynaptic estimate: OTTT, OTPE, F-OTPE.

They replace derivatives: `value + (proxy - stop_gradient(proxy))` has the value of one program and
    the derivative of another.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ..cell import Mask, Timed
from ._oracles_cell import LayeredCell, gradient_of, replaced, sg, zeros_like


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
) -> tuple[PyTree, Float[Array, "T *B"]]:
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
    layers = cell.stateful

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, traces = sg(state)
            new, kept, z = [], [], x
            for layer, h, old in zip(layers, carry, traces, strict=True):
                own = layer.out(h)
                trace = filtered(old, (sg(z), own, jnp.ones(())), leak, bias_trace)
                value = layer.drive(params, z, own, 1.0)
                of_weights, of_inputs = layer.drive(params, *trace), layer.drive(fixed, z, own, 1.0)
                y = replaced(value, jax.tree.map(jnp.add, of_weights, of_inputs))
                h = layer.move(params, h, y)
                new.append(h)
                kept.append(trace)
                z = layer.out(h)
            return (tuple(new), kept), z if cell.leak is not None else cell.readout(params, z)

        start = (carry, traces_of(cell, layers, carry, xs))
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
) -> tuple[PyTree, Float[Array, "T *B"]]:
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
    layers = cell.layers

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)

        def hidden(
            layer: Any,
            h: PyTree,
            state: PyTree,
            z: PyTree,
            proxy: PyTree,
            count: PyTree,
            lowest: bool,
        ) -> tuple[PyTree, ...]:
            total, mean, once, twice = state
            own = sg(layer.out(h))
            y = layer.drive(params, sg(z), own, 1.0)
            new = layer.move(params, h, y)
            active = layer.out(new)
            below = None if lowest else layer.drive(fixed, proxy, own, 1.0)
            total = leak * total + active
            once = filtered(once, (sg(z), own, jnp.ones(())), leak, False)
            twice = filtered(twice, once, leak, False)
            if not lowest or approximate:
                pull = jax.vjp(lambda y: layer.out(layer.move(fixed, sg(h), y)), sg(y))[1]
                (slope,) = pull(jnp.ones_like(active))
                mean = sg(leak * count * mean + slope) / (leak * count + 1)
            if approximate:  # biases and the neuron's own parameters learn from their own step
                of_weights = mean * layer.drive(params, *twice[:2], 0.0)
                biases = layer.drive(params, sg(z), own, 1.0) - layer.drive(params, sg(z), own, 0.0)
                of_rest = layer.out(layer.move(params, sg(h), replaced(y, biases)))
                learned = of_weights + of_rest
            else:
                learned = total
            seen = replaced(active, learned)
            if below is not None:
                seen = seen + mean * (below - sg(below))
            return new, (total, mean, once, twice), active, seen

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, states, once, count = state
            new, kept, z, proxy = [], [], x, x
            for k, (layer, h, at) in enumerate(zip(layers, carry, states, strict=False)):
                h, at, z, proxy = hidden(layer, h, at, z, proxy, count, k == 0)
                new.append(h)
                kept.append(at)
            if cell.leak is None:
                out = cell.readout(params, sg(z)) + _difference(
                    lambda v: cell.readout(fixed, v), proxy
                )
            else:
                once = leak * once + sg(z)
                plain = cell.leak * carry[-1] + cell.readout(params, sg(z))
                if approximate:  # the readout's weights have a filtered input too
                    plain = replaced(plain, cell.readout(params, once))
                new.append(plain)
                out = plain + _difference(lambda v: cell.readout(fixed, v), proxy)
            after = tuple(new) if not approximate else sg(tuple(new))
            return (after, kept, once, leak * count + 1), out

        states = []
        for traces, layer, h in zip(
            traces_of(cell, layers, carry, xs), layers, carry, strict=False
        ):
            rest = jnp.zeros_like(layer.out(h))
            states.append((rest, rest, traces, traces))
        start = (
            carry,
            states,
            jnp.zeros_like(layers[-1].out(carry[len(layers) - 1])),
            jnp.zeros(()),
        )
        return jax.lax.scan(one, start, xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def filtered(old: Any, inputs: PyTree, leak: float, constant: bool) -> PyTree:
    """The leaky sums of a layer's three inputs; the constant 1 stays as it is unless `constant`."""
    below, own = (leak * e + sg(v) for e, v in zip(old[:2], inputs[:2], strict=True))
    return below, own, leak * old[2] + 1 if constant else inputs[2]


def traces_of(cell: LayeredCell, layers: Any, carry: PyTree, xs: Timed) -> list[jax.Array]:
    """Zero traces of what each layer reads."""
    found, z = [], jax.tree.map(lambda v: v[0], xs)
    for layer, h in zip(layers, carry, strict=False):
        own = layer.out(h)
        found.append((zeros_like(z), zeros_like(own), jnp.zeros(())))
        z = own
    return found


def _difference(function: Any, proxy: PyTree) -> PyTree:
    value = function(proxy)
    return value - sg(value)
