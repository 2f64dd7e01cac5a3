"""How the activity of a layer leaves it: joined with another's, scaled, filtered, complex.

`twin` writes the same with one product for each group.
"""

import jax.numpy as jnp
from jax import lax
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, draw, generator, keep, shapes
from .complex_states import LRU, drive, eigenvalues, with_complex_state


def fire(v):
    return sigmoid(3 * v)


def joined(u, v, w):
    return jnp.concatenate([u, v], -1) @ w


def apart(u, v, w):
    return u @ w[:N] + v @ w[N:]


def parallel(product):
    def step(p, c, x, old=keep, mix=keep):
        a = sigmoid(p["a1"]) * c[0] + x @ p["W1"]
        b = sigmoid(p["a2"]) * c[1] + x @ p["W2"]
        return (a, b), product(fire(a), fire(b), p["o"])

    return step


PARALLEL = {"a1": (N,), "W1": (IN, N), "a2": (N,), "W2": (IN, N), "o": (2 * N, OUT)}
case(
    shapes(((N,), (N,)), **PARALLEL),
    name="parallel_populations",
    exact="a1 W1 a2 W2 o",
    features="layout",
    twin=parallel(apart),
)(parallel(joined))


def stacked(product):
    """The upper layer's one matrix meets the lower activity and its own old one."""

    def step(p, c, x, old=keep, mix=keep):
        a = sigmoid(p["a1"]) * c[0] + x @ p["W1"]
        drive = product(mix(fire(a)), mix(fire(old(c[1]))), p["M"])
        b = sigmoid(p["a2"]) * c[1] + drive
        return (a, b), fire(b) @ p["o"]

    return step


STACKED = {"a1": (N,), "W1": (IN, N), "a2": (N,), "M": (2 * N, N), "o": (N, OUT)}
case(
    shapes(((N,), (N,)), **STACKED),
    name="joined_layers",
    approximate="a1 W1 a2 M",
    exact="o",
    features="recurrent multi-layer",
    twin=stacked(apart),
)(stacked(joined))


def two_layers(read):
    def step(p, c, x, old=keep, mix=keep):
        a = sigmoid(p["a1"]) * c[0] + x @ p["W1"]
        b = sigmoid(p["a2"]) * c[1] + read(mix(fire(a)), p["M"])
        return (a, b), fire(b) @ p["o"]

    return step


TWO = {"a1": (N,), "W1": (IN, N), "a2": (N,), "M": (N, N), "o": (N, OUT)}
PLAIN = two_layers(lambda z, M: z @ M)
WAYS = {
    "scaled_activity": lambda z, M: (2 * z) @ (M / 2),
    "activity_read_twice": lambda z, M: z @ M / 2 + jnp.flip(z, -1) @ jnp.flip(M, 0) / 2,
}
for name, way in WAYS.items():
    case(
        shapes(((N,), (N,)), **TWO),
        name=name,
        approximate="a1 W1",
        exact="a2 M o",
        features="multi-layer",
        twin=PLAIN,
    )(two_layers(way))


def with_readout(make, dtype=float):
    """The same data with a leaky readout in the carry."""

    def make_readout(key, T, B):
        params, h, *rest = make(key, T, B)
        y = draw(generator(key, 2), ((B, OUT), (B, OUT)), 0.3)
        return params, (h, lax.complex(*y) if dtype is complex else y[0]), *rest

    return make_readout


@case(
    with_readout(with_complex_state(shapes((N,), **LRU))),
    approximate="nu theta B_re B_im",
    exact="C_re C_im",
    features="complex multi-layer",
)
def filtered_real_part(p, c, x, old=keep, mix=keep):
    """A leaky readout of complex states, real itself."""
    h = eigenvalues(p) * c[0] + drive(p, x)
    y = 0.75 * c[1] + (mix(h) @ lax.complex(p["C_re"], p["C_im"])).real
    return (h, y), y


@case(
    with_readout(with_complex_state(shapes((N,), **LRU)), complex),
    approximate="nu theta B_re B_im",
    exact="C_re C_im",
    features="complex multi-layer",
)
def filtered_complex(p, c, x, old=keep, mix=keep):
    """A leaky readout that is complex as well."""
    h = eigenvalues(p) * c[0] + drive(p, x)
    y = jnp.exp(0.3j).astype(h.dtype) * 0.75 * c[1] + mix(h) @ lax.complex(p["C_re"], p["C_im"])
    return (h, y), y.real + 0.5 * y.imag


@case(
    with_complex_state(
        shapes((N,), **{k: v for k, v in LRU.items() if k[0] != "C"}, o=(2 * N, OUT))
    ),
    exact="nu theta B_re B_im o",
    features="complex",
)
def both_parts(p, h, x, old=keep, mix=keep):
    """The readout meets the real and the imaginary part side by side."""
    h = eigenvalues(p) * h + x @ (p["B_re"] + 1j * p["B_im"])
    return h, jnp.concatenate([h.real, h.imag], -1) @ p["o"]


def two_complex(make):
    def make_two(key, T, B):
        params, h, *rest = make(key, T, B)
        return params, (h, -1j * h), *rest

    return make_two


@case(
    two_complex(with_complex_state(shapes((N,), **LRU, M_re=(N, N), M_im=(N, N)))),
    approximate="nu theta B_re B_im",
    exact="M_re M_im C_re C_im",
    features="complex multi-layer",
)
def complex_layers(p, c, x, old=keep, mix=keep):
    """A complex product between two complex layers."""
    low = eigenvalues(p) * c[0] + drive(p, x)
    high = 0.7 * c[1] + jnp.tanh(mix(low) @ lax.complex(p["M_re"], p["M_im"]))
    return (low, high), (high @ lax.complex(p["C_re"], p["C_im"])).real
