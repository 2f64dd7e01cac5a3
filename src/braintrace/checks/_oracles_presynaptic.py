"""Oracles of the rules with a presynaptic trace or a postsynaptic estimate: OTTT, OTPE, F-OTPE.

They replace derivatives: `value + (proxy - stop_gradient(proxy))` has the value of one program and
    the derivative of another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Mask, Timed
from ._oracles_cell import Gradients, Layer, LayeredCell, gradient_of, replaced, sg, zeros_like


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

        start = (carry, traces_of(layers, carry, xs))
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
    layers = cell.layers

    def run(params: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        fixed = sg(params)

        def hidden(
            layer: Layer,
            h: PyTree,
            state: PyTree,
            below: tuple[PyTree, PyTree],
            count: jax.Array,
            lowest: bool,
        ) -> tuple[PyTree, ...]:
            (total, mean, once, twice), (z, proxy) = state, below
            own = sg(layer.out(h))
            y = layer.drive(params, sg(z), own, 1.0)
            new = layer.move(params, h, y)
            active = layer.out(new)
            total = leak * total + active
            once = filtered(once, (sg(z), own, jnp.ones(())), leak, False)
            twice = filtered(twice, once, leak, False)
            if not lowest or approximate:
                pull = jax.vjp(lambda y: layer.out(layer.move(fixed, sg(h), y)), sg(y))[1]
                (slope,) = pull(jnp.ones_like(active))
                mean = sg(leak * count * mean + slope) / (leak * count + 1)
            learned = total
            if approximate:  # biases and the neuron's own parameters learn from their own step
                learned = mean * layer.drive(params, *twice[:2], 0.0)
                biases = y - layer.drive(params, sg(z), own, 0.0)
                learned += layer.out(layer.move(params, sg(h), replaced(y, biases)))
            seen = replaced(active, learned)
            if not lowest:
                driven = layer.drive(fixed, proxy, own, 1.0)
                seen = seen + mean * (driven - sg(driven))
            return new, (total, mean, once, twice), active, seen

        def one(state: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
            carry, states, once, count = state
            new, kept, z, proxy = [], [], x, x
            for k, (layer, h, at) in enumerate(zip(layers, carry, states, strict=False)):
                h, at, z, proxy = hidden(layer, h, at, (z, proxy), count, k == 0)
                new.append(h)
                kept.append(at)
            out, seen = cell.readout(params, sg(z)), cell.readout(fixed, proxy)
            if cell.leak is not None:
                once, out = leak * once + sg(z), cell.leak * carry[-1] + out
                if approximate:  # the readout's weights have a filtered input too
                    out = replaced(out, cell.readout(params, once))
                new.append(out)
            after = tuple(new) if not approximate else sg(tuple(new))
            return (after, kept, once, leak * count + 1), out + (seen - sg(seen))

        zeros = [jnp.zeros_like(layer.out(h)) for layer, h in zip(layers, carry, strict=False)]
        traces = traces_of(layers, carry, xs)
        states = [(z, z, t, t) for z, t in zip(zeros, traces, strict=True)]
        start = carry, states, zeros[-1], jnp.zeros(())
        return jax.lax.scan(one, start, xs)[1], 0.0

    return gradient_of(run, params, xs, targets, loss_fn, mask, reduction)


def filtered(old: Any, inputs: PyTree, leak: float, constant: bool) -> PyTree:
    """The leaky sums of a layer's three inputs; the constant 1 stays as it is unless `constant`."""
    below, own = (leak * e + sg(v) for e, v in zip(old[:2], inputs[:2], strict=True))
    return below, own, leak * old[2] + 1 if constant else inputs[2]


def traces_of(layers: Sequence[Layer], carry: PyTree, xs: Timed) -> list[PyTree]:
    """Zero traces of what each layer reads."""
    own = [layer.out(h) for layer, h in zip(layers, carry, strict=False)]
    below = [jax.tree.map(lambda v: v[0], xs), *own]
    return [(zeros_like(z), zeros_like(v), jnp.zeros(())) for z, v in zip(below, own, strict=False)]
