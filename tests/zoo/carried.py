"""Carried values that are no hidden state: counters, keys and delay buffers."""

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, draw, generator, keep, shapes

LEAKY = {"a": (N,), "W": (IN, N), "o": (N, OUT)}
DELAY = 3


def beside(make, name, value):
    """The same data with `value(key, B)` in the carry beside the state."""

    def make_beside(key, T, B):
        params, h, *rest = make(key, T, B)
        return params, {"h": h, name: value(key, B)}, *rest

    return make_beside


@case(
    beside(shapes((N,), **LEAKY, w=(N,)), "n", lambda key, B: jnp.zeros(B, jnp.int32)),
    exact="a W w o",
    features="counter",
)
def counter(p, c, x, old=keep, mix=keep):
    """An integer clock per sample gates the input and drives an oscillation."""
    h, n = c["h"], c["n"][:, None]
    h = sigmoid(p["a"]) * h + jnp.where(n % 2 == 0, 1.0, 0.3).astype(h.dtype) * (x @ p["W"])
    h = h + p["w"] * jnp.cos(n.astype(h.dtype))
    return {"h": h, "n": c["n"] + 1}, jnp.tanh(h) @ p["o"]


@case(
    beside(shapes((N,), **LEAKY, sigma=(N,), U=(N, N)), "key", jax.random.split),
    approximate="a W sigma U",
    exact="o",
    features="key recurrent",
)
def noise(p, c, x, old=keep, mix=keep):
    """A key per sample, split at every step."""
    h, keys = c["h"], jax.vmap(jax.random.split)(c["key"])
    xi = jax.vmap(lambda key: jax.random.normal(key, (N,), h.dtype))(keys[:, 0])
    drive = x @ p["W"] + mix(old(h)) @ p["U"] + jnp.exp(p["sigma"]) * xi
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return {"h": h, "key": keys[:, 1]}, h @ p["o"]


def buffer(key, B):
    return draw(generator(key, 1), (B, DELAY, N), 0.6)


def shift(buffer, newest):
    return jnp.concatenate([buffer[:, 1:], newest[:, None]], axis=1)


@case(
    beside(shapes((N,), **LEAKY, U=(N, N)), "past", buffer),
    approximate="a W U",
    exact="o",
    features="delay recurrent",
)
def delayed_product(p, c, x, old=keep, mix=keep):
    """The recurrent product reads the state of three steps ago."""
    delayed = mix(old(c["past"][:, 0]))
    h = sigmoid(p["a"]) * c["h"] + jnp.tanh(x @ p["W"] + delayed @ p["U"])
    return {"h": h, "past": mix(shift(c["past"], h))}, h @ p["o"]


@case(beside(shapes((N,), **LEAKY, d=(N,)), "past", buffer), exact="a W d o", features="delay")
def delayed_own_state(p, c, x, old=keep, mix=keep):
    """The own state of three steps ago: neuron by neuron, a slot for each step of the buffer."""
    h = sigmoid(p["a"]) * c["h"] + jnp.tanh(x @ p["W"] + p["d"] * c["past"][:, 0])
    return {"h": h, "past": shift(c["past"], h)}, h @ p["o"]
