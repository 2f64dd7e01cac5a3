"""Leaky and tanh units, and what can stand in front of or behind them."""

import jax.numpy as jnp
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes


@case(shapes((N,), tau=(N,), W=(N, IN), b=(N,), o=(N, OUT)), exact="tau W b o", features="prelude")
def leaky_masked_transposed(p, h, x, old=keep, mix=keep):
    mask = jnp.arange(N * IN).reshape(N, IN) % 3 > 0
    h = sigmoid(p["tau"]) * h + jnp.tanh(x @ (mask * p["W"]).T + p["b"])
    return h, jnp.tanh(h) @ p["o"]


RECURRENT = {"tau": (N,), "W": (IN, N), "U": (N, N), "b": (N,), "o": (N, OUT)}


@case(shapes((N,), **RECURRENT), approximate="tau W U b", exact="o", features="recurrent")
def leaky_recurrent(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["tau"]) * h + jnp.tanh(x @ p["W"] + mix(old(h)) @ p["U"] + p["b"])
    return h, h @ p["o"]


@case(
    shapes((N,), W=(IN, N), U=(N, N), b=(N,), o=(N, OUT)),
    approximate="W U b",
    exact="o",
    features="recurrent degenerate",
)
def vanilla(p, h, x, old=keep, mix=keep):
    """No leak: the diagonal of the transition is zero and the trace has no memory."""
    h = jnp.tanh(x @ p["W"] + mix(old(h)) @ p["U"] + p["b"])
    return h, h @ p["o"]


@case(shapes((N,), W=(IN, N), u=(N,), b=(N,), o=(N, OUT)), exact="W u b o")
def independent_recurrent(p, h, x, old=keep, mix=keep):
    h = jnp.tanh(x @ p["W"] + p["u"] * h + p["b"])
    return h, h @ p["o"]


@case(
    shapes((N,), **RECURRENT), approximate="tau W U b", exact="o", features="recurrent old-readout"
)
def readout_of_the_old_state(p, h, x, old=keep, mix=keep):
    """The readout leads to no carry output, so its way to the old state stays live."""
    new = sigmoid(p["tau"]) * h + jnp.tanh(x @ p["W"] + mix(old(h)) @ p["U"] + p["b"])
    return new, jnp.tanh(h) @ p["o"]


@case(
    shapes((N,), **RECURRENT), approximate="tau W U b", exact="o", features="recurrent old-readout"
)
def readout_of_the_drive(p, h, x, old=keep, mix=keep):
    """The recurrent product is an entry: it reads the old state stopped for the readout too."""
    drive = x @ p["W"] + mix(old(h)) @ p["U"] + p["b"]
    return sigmoid(p["tau"]) * h + jnp.tanh(drive), (drive + h) @ p["o"]


@case(
    shapes((N,), tau=(N,), E=(IN, 5), W=(5, N), o=(N, OUT)),
    exact="tau W o",
    instantaneous="E",
    features="siteless",
)
def encoder(p, h, x, old=keep, mix=keep):
    """A layer before another weight op has no site."""
    h = sigmoid(p["tau"]) * h + mix(jnp.tanh(x @ p["E"])) @ p["W"]
    return h, h @ p["o"]


@case(
    shapes((N,), tau=(N,), A=(IN + N, 5), C=(5, N), o=(N, OUT)),
    approximate="tau C",
    instantaneous="A",
    exact="o",
    features="recurrent siteless",
)
def recurrent_perceptron(p, h, x, old=keep, mix=keep):
    hidden = jnp.tanh(jnp.concatenate([x, old(h)], axis=-1) @ p["A"])
    h = sigmoid(p["tau"]) * h + mix(hidden) @ p["C"]
    return h, h @ p["o"]


@case(
    shapes((2, 3), W=(IN, 2, 3), scalar=(), vector=(3,), full=(2, 3), o=(2, 3, OUT)),
    exact="W scalar vector full o",
)
def gains(p, h, x, old=keep, mix=keep):
    """Parameters inside the region with fewer axes than the state, and with all of them."""
    drive = jnp.einsum("bi,ijk->bjk", x, p["W"])
    h = sigmoid(p["full"]) * h + p["scalar"] * jnp.tanh(p["vector"] * drive + h)
    return h, jnp.einsum("bjk,jko->bo", h, p["o"])
