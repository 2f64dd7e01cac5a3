"""Complex states of real parameters: the linear recurrent unit and relatives."""

import jax.numpy as jnp
from jax import lax

from ._case import IN, OUT, N, case, draw, generator, keep, shapes


def with_complex_state(make):
    """The same data with a complex h."""

    def make_complex(key, T, B):
        params, h, *rest = make(key, T, B)
        return params, lax.complex(h, draw(generator(key, 1), h.shape, 0.6)), *rest

    return make_complex


LRU = {
    "nu": (N,),
    "theta": (N,),
    "B_re": (IN, N),
    "B_im": (IN, N),
    "C_re": (N, OUT),
    "C_im": (N, OUT),
}


def eigenvalues(p):
    return jnp.exp(lax.complex(-jnp.exp(p["nu"]), jnp.exp(p["theta"])))


def drive(p, x):
    return x @ lax.complex(p["B_re"], p["B_im"])


def read(p, h):
    return (h @ lax.complex(p["C_re"], p["C_im"])).real


@case(
    with_complex_state(shapes((N,), **LRU, gamma=(N,), D=(IN, OUT))),
    exact="nu theta B_re B_im C_re C_im gamma D",
    features="complex",
)
def lru(p, h, x, old=keep, mix=keep):
    h = eigenvalues(p) * h + jnp.exp(p["gamma"]) * drive(p, x)
    return h, read(p, h) + x @ p["D"]


@case(
    with_complex_state(shapes((N,), **LRU, b=(N,))),
    exact="nu theta B_re B_im C_re C_im b",
    features="complex non-holomorphic",
)
def complex_modulus(p, h, x, old=keep, mix=keep):
    """A transition with no complex derivative: it is a 2 x 2 real matrix."""
    h = eigenvalues(p) * h / (1 + jnp.abs(h)) + p["b"] * jnp.conj(h) + drive(p, x)
    return h, read(p, h)


@case(
    with_complex_state(shapes((N,), **LRU, U=(N, N))),
    approximate="nu theta B_re B_im U",
    exact="C_re C_im",
    features="complex recurrent non-holomorphic",
)
def complex_recurrent(p, h, x, old=keep, mix=keep):
    """A real product of the real part drives the complex state."""
    h = eigenvalues(p) * h + drive(p, x) + jnp.tanh(mix(old(h).real) @ p["U"])
    return h, read(p, h)
