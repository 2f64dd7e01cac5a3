"""Weights used more than once, and weights made from other weights before they meet data."""

import jax.numpy as jnp
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes


def leaky(p, h, drive):
    """The unit that all cells of this file share."""
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return h, h @ p["o"]


LEAKY = {"a": (N,), "o": (N, OUT)}


@case(shapes((5, 2), x=(5, IN), a=(2,), W=(IN, 2), o=(5, 2, OUT)), exact="a W o", features="shared")
def shared_over_positions(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + jnp.tanh(jnp.einsum("bti,io->bto", x, p["W"]))
    return h, jnp.einsum("bto,top->bp", h, p["o"])


@case(
    shapes((N,), x=(N,), **LEAKY, W=(N, N)),
    approximate="a W",
    exact="o",
    features="recurrent shared",
)
def used_twice(p, h, x, old=keep, mix=keep):
    return leaky(p, h, x @ p["W"] + mix(old(h)) @ p["W"])


@case(shapes((N,), x=(OUT,), a=(N,), W=(OUT, N)), exact="a W", features="shared")
def tied_readout(p, h, x, old=keep, mix=keep):
    """One weight with a site on the way in, and without one on the way out."""
    h = sigmoid(p["a"]) * h + jnp.tanh(x @ p["W"])
    return h, jnp.tanh(h) @ p["W"].T


@case(
    shapes(((N,), (N,)), x=(N,), **LEAKY, W=(N, N)),
    approximate="a W",
    exact="o",
    features="shared multi-layer",
)
def shared_by_two_layers(p, c, x, old=keep, mix=keep):
    h1, h2 = c
    new1 = sigmoid(p["a"]) * h1 + jnp.tanh(x @ p["W"])
    new2, out = leaky(p, h2, mix(new1) @ p["W"])
    return (new1, new2), out


@case(shapes((N,), **LEAKY, W=(IN, N), V=(IN, N)), exact="a W V o", features="prelude")
def summed_weights(p, h, x, old=keep, mix=keep):
    return leaky(p, h, x @ (p["W"] + p["V"]))


@case(shapes((N,), **LEAKY, W=(IN, N)), exact="a W o", features="prelude")
def scaled_weight(p, h, x, old=keep, mix=keep):
    return leaky(p, h, x @ (2 * p["W"]))


@case(
    shapes((N,), **LEAKY, A=(IN, 2), C=(2, N), U=(N, N)),
    approximate="a A C U",
    exact="o",
    features="prelude recurrent",
)
def factored_weight(p, h, x, old=keep, mix=keep):
    return leaky(p, h, x @ (p["A"] @ p["C"]) + mix(old(h)) @ p["U"])


@case(shapes((N,), **LEAKY, A=(IN, 2), C=(2, N)), exact="a A C o")
def factored_data(p, h, x, old=keep, mix=keep):
    """The same values as x @ (A @ C), but the data meets A first: both factors have a site."""
    return leaky(p, h, x @ p["A"] @ p["C"])


@case(
    shapes((N,), **LEAKY, A=(IN, 2), C=(2, N)),
    exact="a C o",
    instantaneous="A",
    features="siteless",
)
def encoded_data(p, h, x, old=keep, mix=keep):
    """A layer without state in front: what it makes is data, and only C has a site."""
    return leaky(p, h, mix(jnp.tanh(x @ p["A"])) @ p["C"])


@case(shapes((N,), **LEAKY, v=(IN, N), g=(N,), s=(N,)), exact="a v g s o", features="prelude")
def normalised_weight(p, h, x, old=keep, mix=keep):
    """Squashed, and normalised per neuron with a trained gain."""
    W = jnp.exp(p["g"]) * p["v"] / jnp.linalg.norm(p["v"], axis=0)
    return leaky(p, h, x @ jnp.tanh(W) + 2 * p["s"])


def stored_narrow(make):
    """The same data with V stored in float32."""

    def make_narrow(key, T, B):
        params, *rest = make(key, T, B)
        return params | {"V": params["V"].astype(jnp.float32)}, *rest

    return make_narrow


@case(
    stored_narrow(shapes((N,), **LEAKY, W=(IN, N), V=(IN, N))),
    exact="a W V o",
    features="prelude float32",
)
def cast_weights(p, h, x, old=keep, mix=keep):
    """W is stored wide and used narrow, V the other way round."""
    W = p["W"].astype(jnp.float32).astype(h.dtype)
    return leaky(p, h, x @ W + x @ p["V"].astype(h.dtype))
