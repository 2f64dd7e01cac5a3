"""Cells written as layers, so that every oracle can take them apart."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import sigmoid

from braintrace.checks import Layer, LayeredCell
from zoo._case import spike

I, N, M, O, T, B = 3, 4, 3, 2, 6, 2
LEAK, THRESHOLD = 0.8, 0.3
sg = lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Example:
    """A cell, the shapes of its parameters, of its carry without the samples, and of x."""

    cell: LayeredCell
    params: Mapping[str, tuple]
    carry: tuple
    x: tuple = (I,)
    scale: float = 1.0
    groups: int = 1  # state groups of a layer, of one size


def dense(k="", recurrent=True, bias=True):
    """`x W + own U + 1 b`."""

    def drive(p, below, own, one):
        y = below @ p["W" + k]
        if recurrent:
            y = y + own @ p["U" + k]
        return y + one * p["b" + k] if bias else y

    return drive


def fire(V):
    return spike(V - THRESHOLD)


def lif_move(p, V, y):
    """One leak, a detached reset: the neuron of OTTT and OTPE."""
    return LEAK * (V - THRESHOLD * sg(fire(V))) + y


def lif(k="", **options):
    return Layer(dense(k, **options), lif_move, fire)


def alif(k):
    def out(h):
        return spike(h["V"] - THRESHOLD - 0.2 * h["a"])

    def move(p, h, y):
        z = out(h)
        return {"V": 0.9 * h["V"] + y - 0.3 * z, "a": sigmoid(p["rho" + k]) * h["a"] + z}

    return Layer(dense(k, bias=False), move, out)


def leaky_move(p, h, y):
    return sigmoid(p["tau"]) * h + jnp.tanh(y)


def gru_drive(p, below, own, one):
    return below @ p["W"] + one * p["b"], own @ p["U"] + one * p["c"]


def gru_move(p, h, y):
    """The reset gate multiplies the product, as in cuDNN."""
    (xr, xz, xn), (hr, hz, hn) = (jnp.split(v, 3, axis=-1) for v in y)
    z = sigmoid(xz + hz)
    return z * h + (1 - z) * jnp.tanh(xn + sigmoid(xr + hr) * hn)


def conv_drive(p, below, own, one):
    y = lax.conv_general_dilated(
        below, p["K"], (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")
    )
    return y + one * p["b"]


def synapse_move(p, h, y):
    """The new current feeds the new potential inside the step."""
    g = sigmoid(p["alpha"]) * h["g"] + y
    return {"g": g, "V": LEAK * h["V"] + g - THRESHOLD * fire(h["V"])}


def joined_drive(k):
    """One product of what comes from below beside the layer's own activity, as in brainstate and
    Haiku.
    """
    return lambda p, below, own, one: (
        jnp.concatenate([below, own], -1) @ p["M" + k] + one * p["b" + k]
    )


def lstm(k):
    def move(p, h, y):
        i, f, g, o = jnp.split(y, 4, axis=-1)
        c = sigmoid(f + 1) * h["c"] + sigmoid(i) * jnp.tanh(g)
        return {"c": c, "h": sigmoid(o) * jnp.tanh(c)}

    return Layer(joined_drive(k), move, lambda h: h["h"])


def populations(recurrent):
    """LIF neurons beside neurons without a reset: two state groups, read as one array."""

    def out(h):
        return jnp.concatenate([fire(h["v"]), jnp.tanh(h["a"])], -1)

    def move(p, h, y):
        v, a = jnp.split(y, 2, axis=-1)
        return {"v": lif_move(p, h["v"], v), "a": sigmoid(p["tau"]) * h["a"] + a}

    def drive(p, below, own, one):
        both = [below @ p["W" + k] for k in "va"]
        if recurrent:
            both = [y + own @ p["U" + k] for y, k in zip(both, "va", strict=True)]
        return jnp.concatenate(both, -1)

    return Layer(drive, move, out)


def read(p, z):
    return z.reshape(z.shape[0], -1) @ p["o"]


def stack(*layers, leak: float | None = LEAK):
    return LayeredCell(layers, read, leak)


def three_lif(k):
    return lif(k, recurrent=False)


EXAMPLES = {
    "leaky_tanh": Example(
        stack(Layer(dense(), leaky_move, jnp.tanh), leak=None),
        {"tau": (N,), "W": (I, N), "U": (N, N), "b": (N,), "o": (N, O)},
        ((N,),),
    ),
    "gru": Example(
        stack(Layer(gru_drive, gru_move, lambda h: h), leak=None),
        {"W": (I, 3 * N), "U": (N, 3 * N), "b": (3 * N,), "c": (3 * N,), "o": (N, O)},
        ((N,),),
    ),
    "two_alif": Example(
        stack(alif("1"), alif("2")),
        {
            "rho1": (N,),
            "W1": (I, N),
            "U1": (N, N),
            "rho2": (M,),
            "W2": (N, M),
            "U2": (M, M),
            "o": (M, O),
        },
        ({"V": (N,), "a": (N,)}, {"V": (M,), "a": (M,)}, (O,)),
    ),
    "three_lif": Example(
        stack(three_lif("1"), three_lif("2"), three_lif("3")),
        {"W1": (I, N), "b1": (N,), "W2": (N, N), "b2": (N,), "W3": (N, M), "b3": (M,), "o": (M, O)},
        ((N,), (N,), (M,), (O,)),
    ),
    "conv_lif": Example(
        stack(Layer(conv_drive, lif_move, fire)),
        {"K": (3, 2, 2), "b": (2,), "o": (8, O)},
        ((4, 2), (O,)),
        (4, 2),
    ),
    "synapse": Example(
        stack(Layer(dense(bias=False, recurrent=False), synapse_move, lambda h: fire(h["V"]))),
        {"alpha": (N,), "W": (I, N), "o": (N, O)},
        ({"g": (N,), "V": (N,)}, (O,)),
    ),
    "recurrent_lif": Example(
        stack(lif()), {"W": (I, N), "U": (N, N), "b": (N,), "o": (N, O)}, ((N,), (O,))
    ),
    "one_lif": Example(
        stack(lif(recurrent=False)), {"W": (I, N), "b": (N,), "o": (N, O)}, ((N,), (O,))
    ),
    "vanilla": Example(  # its state keeps nothing of the old one by itself
        stack(Layer(dense(), lambda p, h, y: jnp.tanh(y), lambda h: h)),
        {"W": (I, N), "U": (N, N), "b": (N,), "o": (N, O)},
        ((N,), (O,)),
    ),
    "joined": Example(
        stack(lif("1", recurrent=False), Layer(joined_drive("2"), lif_move, fire)),
        {"W1": (I, N), "b1": (N,), "M2": (N + M, M), "b2": (M,), "o": (M, O)},
        ((N,), (M,), (O,)),
    ),
    "joined_lstm": Example(
        stack(lstm("1"), lstm("2"), leak=None),
        {"M1": (I + N, 4 * N), "b1": (4 * N,), "M2": (N + M, 4 * M), "b2": (4 * M,), "o": (M, O)},
        ({"c": (N,), "h": (N,)}, {"c": (M,), "h": (M,)}),
    ),
    "populations": Example(
        stack(populations(recurrent=True)),
        {
            "tau": (N,),
            "Wv": (I, N),
            "Wa": (I, N),
            "Uv": (2 * N, N),
            "Ua": (2 * N, N),
            "o": (2 * N, O),
        },
        ({"v": (N,), "a": (N,)}, (O,)),
        groups=2,
    ),
    "forward_populations": Example(
        stack(populations(recurrent=False)),
        {"tau": (N,), "Wv": (I, N), "Wa": (I, N), "o": (2 * N, O)},
        ({"v": (N,), "a": (N,)}, (O,)),
        groups=2,
    ),
}

#: The cells that every algorithm is tested on.
SIX = ("leaky_tanh", "gru", "two_alif", "three_lif", "conv_lif", "synapse")


def data(name, steps=T, samples=B, seed=0):
    """params, carry, xs, ys of an example."""
    example, rng = EXAMPLES[name], np.random.default_rng([seed, len(name)])
    shape = lambda v: isinstance(v, tuple) and all(isinstance(n, int) for n in v)

    def drawn(shapes, scale, *lead):
        return jax.tree.map(
            lambda s: jnp.asarray(scale * rng.normal(size=(*lead, *s))), shapes, is_leaf=shape
        )

    params = drawn(dict(example.params), 0.8)
    carry, xs, ys = (
        drawn(example.carry, 0.3, samples),
        drawn(example.x, 1.5, steps, samples),
        drawn((O,), 1.0, steps, samples),
    )
    return params, carry, xs, ys
