"""Mixing by anything but a weight: rolls, reductions and normalisations over neurons."""

import jax.numpy as jnp
from jax import lax
from jax.nn import sigmoid, softmax

from ._case import IN, OUT, N, case, keep, shapes

LEAKY = {"a": (N,), "W": (IN, N), "o": (N, OUT)}
RECURRENT = LEAKY | {"U": (N, N), "g": (N,), "b": (N,)}


def total(v):
    return jnp.sum(v, axis=-1, keepdims=True)


def mean(v):
    return jnp.mean(v, axis=-1, keepdims=True)


def rstd(v):
    return lax.rsqrt(jnp.var(v, axis=-1, keepdims=True) + 0.1)


def read(p, h):
    return h, jnp.tanh(h) @ p["o"]


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="mixing")
def roll_coupling(p, h, x, old=keep, mix=keep):
    """The neighbour's edge is cut, the own one stays."""
    neighbour = jnp.roll(mix(jnp.tanh(old(h))), 1, axis=-1)
    return read(p, sigmoid(p["a"]) * (h + 0.5 * neighbour) + x @ p["W"])


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="mixing degenerate")
def shifted_state(p, h, x, old=keep, mix=keep):
    """Every neuron hands its state on: no own edge is left."""
    return read(p, sigmoid(p["a"]) * jnp.roll(mix(old(h)), 1, axis=-1) + x @ p["W"])


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="mixing")
def reversed_coupling(p, h, x, old=keep, mix=keep):
    return read(p, sigmoid(p["a"]) * h + 0.4 * jnp.flip(mix(old(h)), axis=-1) + x @ p["W"])


@case(shapes((N,), **LEAKY, c=(N,)), approximate="a W c", exact="o", features="mixing")
def cumulative_sum(p, h, x, old=keep, mix=keep):
    below = jnp.cumsum(mix(jnp.tanh(old(h))), axis=-1)
    return read(p, sigmoid(p["a"]) * h + p["c"] * below + x @ p["W"])


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="mixing")
def mean_subtraction(p, h, x, old=keep, mix=keep):
    return read(p, sigmoid(p["a"]) * (h - mix(mean(old(h)))) + x @ p["W"])


@case(shapes((N,), **LEAKY, c=(N,)), approximate="a W c", exact="o", features="mixing")
def inhibition(p, h, x, old=keep, mix=keep):
    """A global sum, received with a strength per neuron."""
    return read(p, sigmoid(p["a"]) * h - p["c"] * mix(total(jnp.tanh(old(h)))) + x @ p["W"])


@case(
    shapes((N,), **LEAKY, c=()),
    approximate="a W",
    instantaneous="c",
    exact="o",
    features="mixing siteless",
)
def scaled_inhibition(p, h, x, old=keep, mix=keep):
    """The one strength scales the sum before it is broadcast: no site."""
    return read(p, sigmoid(p["a"]) * h - mix(p["c"] * total(jnp.tanh(old(h)))) + x @ p["W"])


@case(
    shapes((N,), a=(N,), w=(IN,), g=(N,), o=(N, OUT)),
    exact="a g o",
    instantaneous="w",
    features="mixing siteless",
)
def broadcast_drive(p, h, x, old=keep, mix=keep):
    """One drive for all neurons: a broadcast over neurons mixes."""
    return read(p, sigmoid(p["a"]) * h + p["g"] * mix(x @ p["w"])[:, None])


@case(shapes((N,), **RECURRENT), approximate="a W U g b", exact="o", features="recurrent layernorm")
def layer_norm(p, h, x, old=keep, mix=keep):
    y = x @ p["W"] + mix(old(h)) @ p["U"]
    y = (y - mix(mean(y))) * mix(rstd(y))
    return read(p, sigmoid(p["a"]) * h + jnp.tanh(p["g"] * y + p["b"]))


@case(shapes((N,), **LEAKY, g=(N,)), approximate="a W g", exact="o", features="layernorm")
def layer_norm_with_leak(p, h, x, old=keep, mix=keep):
    """Statistics of the old state and the drive together are made at this step: live."""
    y = sigmoid(p["a"]) * h + x @ p["W"]
    return read(p, jnp.exp(p["g"]) * (y - mix(mean(y))) * mix(rstd(y)))


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="layernorm mixing")
def layer_norm_of_the_old_state(p, h, x, old=keep, mix=keep):
    """Statistics of the old state read it stopped, and their parameters live."""
    y, stopped = jnp.exp(p["a"]) * h, jnp.exp(p["a"]) * old(h)
    return read(p, 0.8 * (y - mix(mean(stopped))) * mix(rstd(stopped)) + x @ p["W"])


@case(shapes((N,), **RECURRENT), approximate="a g W U b", exact="o", features="recurrent softmax")
def softmax_in_front(p, h, x, old=keep, mix=keep):
    """The library's softmax: its numerator is positional, its sum is cut."""
    u = x @ p["W"] + mix(old(h)) @ p["U"] + p["b"]
    top = lax.stop_gradient(jnp.max(u, axis=-1, keepdims=True))
    y = softmax(u, axis=-1) if mix is keep else jnp.exp(u - top) / mix(total(jnp.exp(u - top)))
    return read(p, sigmoid(p["a"]) * h + p["g"] * y)


@case(shapes((N,), **RECURRENT), approximate="a W U g b", exact="o", features="recurrent softmax")
def softmax_by_hand(p, h, x, old=keep, mix=keep):
    """The numerator is positional, the sum is cut."""
    y = jnp.exp(x @ p["W"] + mix(old(h)) @ p["U"] + p["b"])
    return read(p, sigmoid(p["a"]) * h + p["g"] * y / mix(total(y)))


@case(shapes((N,), **LEAKY, g=(N,)), approximate="a W g", exact="o", features="mixing softmax")
def softmax_of_the_old_state(p, h, x, old=keep, mix=keep):
    share = jnp.exp(p["g"] * h) / mix(total(jnp.exp(p["g"] * old(h))))
    return read(p, sigmoid(p["a"]) * h + share + x @ p["W"])
