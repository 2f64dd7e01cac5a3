"""Drives that are moved about on their way to the state: every element reaches one position."""

import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes

LEAKY = {"a": (N,), "W": (IN, N), "o": (N, OUT)}


def leaky(p, h, drive):
    """The unit that all cells of this file share."""
    h = sigmoid(p["a"]) * h + drive
    return h, jnp.tanh(h) @ p["o"]


@case(shapes((N,), **LEAKY), exact="a W o", features="layout")
def rolled_drive(p, h, x, old=keep, mix=keep):
    return leaky(p, h, jnp.roll(x @ p["W"], 1, axis=-1))


@case(shapes((N,), **LEAKY), exact="a W o", features="layout")
def drive_plus_rolled_drive(p, h, x, old=keep, mix=keep):
    """One product in two places: each use is positional."""
    drive = x @ p["W"]
    return leaky(p, h, drive + 0.5 * jnp.roll(drive, 1, axis=-1))


@case(shapes((N,), **LEAKY), exact="a W o", features="layout")
def permuted_drive(p, h, x, old=keep, mix=keep):
    """A gather by a constant index."""
    return leaky(p, h, (x @ p["W"])[:, jnp.array([2, 0, 3, 1])])


@case(shapes((N,), **LEAKY | {"W": (IN, N - 1)}), exact="a W o", features="layout")
def padded_and_reversed(p, h, x, old=keep, mix=keep):
    return leaky(p, h, jnp.flip(jnp.pad(x @ p["W"], ((0, 0), (1, 0))), axis=-1))


@case(shapes((N,), **LEAKY, V=(IN, 2), s=(2,)), exact="a W V s o", features="layout")
def pieces(p, h, x, old=keep, mix=keep):
    """Strided slices, reshapes, transposes and pieces with a scale of their own."""
    left, right = jnp.split(x @ p["W"], 2, axis=-1)
    right = right + p["s"] * (x @ p["V"])
    drive = jnp.stack([left[:, ::-1], right], axis=1)
    return leaky(p, h, drive.transpose(0, 2, 1).reshape(-1, N))


@case(
    shapes((N,), **LEAKY | {"W": (N, IN)}, U=(N, N)),
    approximate="a W U",
    exact="o",
    features="layout recurrent",
)
def vmapped(p, h, x, old=keep, mix=keep):
    """Written for one sample, `W @ x`, and vmapped."""

    def sample(h, x):
        return leaky(p, h, jnp.tanh(p["W"] @ x + p["U"] @ mix(old(h))))

    return jax.vmap(sample)(h, x)


@case(
    shapes((N,), **LEAKY | {"W": (N, IN)}, U=(N, N)),
    approximate="a W U",
    exact="o",
    features="layout recurrent",
)
def neurons_first(p, h, x, old=keep, mix=keep):
    """The step works on transposed arrays."""
    drive = jnp.tanh(p["W"] @ x.T + p["U"] @ mix(old(h).T))
    return leaky(p, h, drive.T)
