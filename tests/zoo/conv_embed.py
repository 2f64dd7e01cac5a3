"""Convolutions, embeddings and grouped products."""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import sigmoid

from ._case import OUT, N, case, generator, keep, shapes

#: Words an embedding knows.
VOCABULARY = 3


def convolve(x, kernel, **options):
    """SAME convolution; channels last, as many spatial axes as x has."""
    numbers = ("NWC", "WIO", "NWC") if x.ndim == 3 else ("NHWC", "HWIO", "NHWC")
    options = {"window_strides": (1,) * (x.ndim - 2), "padding": "SAME"} | options
    return lax.conv_general_dilated(x, kernel, dimension_numbers=numbers, **options)


CONV1D = {"a": (2,), "K": (3, 3, 2), "b": (2,), "o": (10, OUT)}
CONV2D = {"a": (4,), "K": (3, 3, 1, 4), "R": (2, 2, 4, 4), "b": (4,), "o": (24, OUT)}


@case(shapes((5, 2), x=(5, 3), **CONV1D), exact="a K b o", features="conv")
def conv1d(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + jnp.tanh(convolve(x, p["K"]) + p["b"])
    return h, h.reshape(-1, 10) @ p["o"]


@case(
    shapes((5, 2), x=(5, 3), **CONV1D, R=(3, 2, 2)),
    approximate="a K R b",
    exact="o",
    features="conv recurrent",
)
def conv1d_recurrent(p, h, x, old=keep, mix=keep):
    drive = convolve(x, p["K"]) + convolve(mix(old(h)), p["R"]) + p["b"]
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return h, h.reshape(-1, 10) @ p["o"]


@case(
    shapes((2, 3, 4), x=(4, 6, 2), **CONV2D),
    approximate="a K R b",
    exact="o",
    features="conv recurrent",
)
def conv2d_recurrent(p, h, x, old=keep, mix=keep):
    """Strided and grouped on the way in."""
    drive = convolve(x, p["K"], window_strides=(2, 2), feature_group_count=2)
    drive = drive + convolve(mix(jnp.tanh(old(h))), p["R"]) + p["b"]
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return h, h.reshape(-1, 24) @ p["o"]


def words(make):
    """The same data with a word per sample and step for x; every word occurs from T * B = 3 on."""

    def make_words(key, T, B):
        params, carry, _, targets = make(key, T, B)
        xs = generator(key, 1).permutation(np.arange(T * B) % VOCABULARY)
        return params, carry, jnp.asarray(xs).reshape(T, B), targets

    return make_words


@case(
    words(shapes((N,), a=(N,), E=(VOCABULARY, N), G=(VOCABULARY, N), o=(N, OUT))),
    exact="a E G o",
    features="embedding",
)
def embedding(p, h, x, old=keep, mix=keep):
    """Two tables driven by the same indices."""
    h = sigmoid(p["a"]) * h + sigmoid(p["G"][x]) * p["E"][x]
    return h, jnp.tanh(h) @ p["o"]


@case(
    words(shapes((N,), a=(N,), E=(VOCABULARY, N), U=(N, N), o=(N, OUT))),
    approximate="a E U",
    exact="o",
    features="embedding recurrent",
)
def embedding_recurrent(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + jnp.tanh(p["E"][x] + mix(old(h)) @ p["U"])
    return h, h @ p["o"]


@case(
    words(shapes((N,), a=(N,), E=(VOCABULARY, 5), W=(5, N), o=(N, OUT))),
    exact="a W o",
    instantaneous="E",
    features="embedding siteless",
)
def embedding_encoder(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + jnp.tanh(mix(p["E"][x]) @ p["W"])
    return h, h @ p["o"]


@case(
    shapes((2, 3), x=(2, 4), a=(2, 3), W=(2, 4, 3), o=(2, 3, OUT)),
    exact="a W o",
    features="grouped",
)
def grouped(p, h, x, old=keep, mix=keep):
    h = sigmoid(p["a"]) * h + jnp.tanh(jnp.einsum("bgi,gio->bgo", x, p["W"]))
    return h, jnp.einsum("bgo,gop->bp", h, p["o"])


@case(
    shapes((2, 3), x=(2, 4), a=(2, 3), W=(2, 4, 3), U=(2, 3, 3), o=(2, 3, OUT)),
    approximate="a W U",
    exact="o",
    features="grouped recurrent",
)
def grouped_recurrent(p, h, x, old=keep, mix=keep):
    drive = jnp.einsum("bgi,gio->bgo", x, p["W"])
    drive = drive + jnp.einsum("bgi,gio->bgo", mix(old(h)), p["U"])
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return h, jnp.einsum("bgo,gop->bp", h, p["o"])
