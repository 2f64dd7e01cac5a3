"""Loops and branches inside the step."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes

LEAKY = {"a": (N,), "W": (IN, N), "o": (N, OUT)}


@case(shapes((N,), **LEAKY, u=(N,)), exact="a W u o", features="substeps")
def substeps(p, h, x, old=keep, mix=keep):
    """Three steps of an elementwise dynamics under one drive."""
    drive = x @ p["W"]

    def substep(h, _):
        return h + 0.3 * (jnp.tanh(drive + p["u"] * h) - sigmoid(p["a"]) * h), None

    h, _ = lax.scan(substep, h, None, length=3)
    return h, h @ p["o"]


@case(shapes((N,), x=(3, IN), **LEAKY), exact="a W o", features="substeps")
def substeps_input(p, h, x, old=keep, mix=keep):
    """Every sub-step has an input and a product of its own."""

    def substep(h, x):
        return sigmoid(p["a"]) * h + jnp.tanh(x @ p["W"]), None

    h, _ = lax.scan(substep, h, x.swapaxes(0, 1))
    return h, h @ p["o"]


def substeps_recurrent_cell(p, h, x):
    drive = x @ p["W"]

    def substep(h, _):
        return sigmoid(p["a"]) * h + 0.5 * jnp.tanh(drive + h @ p["U"]), None

    h, _ = lax.scan(substep, h, None, length=3)
    return h, h @ p["o"]


@case(
    shapes((N,), **LEAKY, U=(N, N)),
    approximate="a W U",
    exact="o",
    features="substeps recurrent",
    cell=substeps_recurrent_cell,
)
def substeps_recurrent(p, h, x, old=keep, mix=keep):
    """The first product reads the old state, the others a state made at this step."""
    drive, read = x @ p["W"], old(h)
    for _ in range(3):
        h = sigmoid(p["a"]) * h + 0.5 * jnp.tanh(drive + mix(read) @ p["U"])
        read = h
    return h, h @ p["o"]


def in_context(make):
    """The same data with x[t, :, 0] = -1, 0, 1, -1, ...: a context that all samples share."""

    def make_in_context(key, T, B):
        params, carry, xs, targets = make(key, T, B)
        context = (jnp.arange(T) % 3 - 1).astype(xs.dtype)
        return params, carry, xs.at[..., 0].set(context[:, None]), targets

    return make_in_context


@case(
    in_context(shapes((N,), **LEAKY, d=(N,), u=(N,))),
    exact="a W d u o",
    features="branch shared-context",
)
def cond(p, h, x, old=keep, mix=keep):
    """Positional branches on a product made outside."""
    drive = x @ p["W"]

    def integrate(h):
        return sigmoid(p["a"]) * h + jnp.tanh(drive + p["u"] * h)

    def decay(h):
        return sigmoid(p["d"]) * h + 0.5 * drive

    h = lax.cond(x[0, 0] > -0.5, integrate, decay, h)
    return h, h @ p["o"]


@case(
    in_context(shapes((N,), **LEAKY, V=(IN, N))), exact="a W V o", features="branch shared-context"
)
def cond_products(p, h, x, old=keep, mix=keep):
    """A product of its own in each branch."""
    h = lax.cond(
        x[0, 0] > -0.5,
        lambda h: sigmoid(p["a"]) * h + jnp.tanh(x @ p["W"]),
        lambda h: 0.5 * h + x @ p["V"],
        h,
    )
    return h, h @ p["o"]


@case(
    in_context(shapes((N,), **LEAKY, V=(IN, N), U=(N, N))),
    approximate="a W V U",
    exact="o",
    features="branch recurrent shared-context",
)
def switch(p, h, x, old=keep, mix=keep):
    """Of three branches one is recurrent."""
    branches = (
        lambda h: sigmoid(p["a"]) * h + jnp.tanh(x @ p["W"]),
        lambda h: sigmoid(p["a"]) * h + jnp.tanh(mix(old(h)) @ p["U"]),
        lambda h: 0.5 * h + x @ p["V"],
    )
    h = lax.switch((x[0, 0] + 1).astype(jnp.int32), branches, h)
    return h, h @ p["o"]


@case(shapes((N,), **LEAKY, d=(N,)), exact="a W d o", features="branch")
def where(p, h, x, old=keep, mix=keep):
    """Elementwise choices, on the state and on the input of the sample."""
    drive = jnp.tanh(x @ p["W"])
    h = jnp.where(h > 0, sigmoid(p["a"]) * h, p["d"] * h)
    h = h + jnp.where(x[:, :1] > 0, drive, 0.5 * drive)
    return h, h @ p["o"]


@case(shapes((N,), **LEAKY, U=(N, N)), approximate="a W U", exact="o", features="recurrent calls")
def nested_calls(p, h, x, old=keep, mix=keep):
    """jit and checkpoint inside the step."""
    drive = jax.checkpoint(lambda h: jnp.tanh(x @ p["W"] + mix(old(h)) @ p["U"]))(h)
    h = jax.jit(lambda a, h: sigmoid(a) * h + drive)(p["a"], h)
    return h, h @ p["o"]
