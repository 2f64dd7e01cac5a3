"""Networks of one or three layers with a readout, as plain functions, for comparisons and
benchmarks.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

Step = Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
Shapes = Callable[[int, int], dict[str, tuple[int, ...]]]  # of the weights, for I inputs, N neurons


@dataclasses.dataclass(frozen=True)
class Model:
    """A cell with its parameters and its first carry, for B samples, I inputs, N neurons a layer
    and O outputs.
    """

    cell: Step
    params: PyTree
    carry: PyTree
    leak: float = 0.9  # of the neurons' membrane, where there is one


@jax.custom_jvp
def spike(v: jax.Array) -> jax.Array:
    """1 where v > 0, else 0; its derivative is replaced by `0.3 max(0, 1 - |v|)`."""
    return (v > 0).astype(v.dtype)


spike.defjvp(lambda p, t: (spike(p[0]), 0.3 * jnp.maximum(0, 1 - jnp.abs(p[0])) * t[0]))


def _rnn(p: PyTree, h: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    """A leaky tanh network: h <- 0.9 h + 0.1 tanh(x W + h U + b)."""
    h = 0.9 * h + 0.1 * jnp.tanh(x @ p["W"] + h @ p["U"] + p["b"])
    return h, h @ p["o"]


def _gru(p: PyTree, h: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    """A gated recurrent unit, its reset after the product."""
    from_x, from_h, two = x @ p["W"] + p["b"], h @ p["U"], 2 * h.shape[-1]
    r, z = jnp.split(jax.nn.sigmoid(from_x[:, :two] + from_h[:, :two]), 2, -1)
    n = jnp.tanh(from_x[:, two:] + r * from_h[:, two:])
    h = (1 - z) * n + z * h
    return h, h @ p["o"]


def _lstm(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    """A long short-term memory."""
    h, c = carry
    i, f, g, o = jnp.split(x @ p["W"] + h @ p["U"] + p["b"], 4, -1)
    c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h @ p["o"]


def _lif(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    """Leaky integrate-and-fire neurons behind exponential synapses."""
    v, g = carry
    z = spike(v - 1)
    g = 0.8 * g + x @ p["W"] + z @ p["U"]
    v = 0.9 * v + 0.5 * g - z
    return (v, g), spike(v - 1) @ p["o"]


def _alif(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    """As `lif`, with an adaptive threshold."""
    v, g, a = carry
    z = spike(v - 1 - 0.2 * a)
    a = 0.98 * a + z
    g = 0.8 * g + x @ p["W"] + z @ p["U"]
    v = 0.9 * v + 0.5 * g - z
    return (v, g, a), spike(v - 1 - 0.2 * a) @ p["o"]


def _three_lif(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
    """Three layers of leaky integrate-and-fire neurons that feed each other forward; the reset is
    detached.
    """
    new, z = [], x
    for k, v in enumerate(carry):
        v = 0.9 * v - jax.lax.stop_gradient(spike(v - 1)) + z @ p[f"W{k + 1}"]
        z = spike(v - 1)
        new.append(v)
    return tuple(new), z @ p["o"]


def _model(cell: Step, states: int, weights: Shapes, I: int, N: int, O: int, B: int) -> Model:
    """Random weights, those of a readout included, and a carry of so many `states`; 0 is one that
    stands alone.
    """
    shapes, random = {**weights(I, N), "o": (N, O)}, np.random.default_rng(0)
    draw = lambda s: random.normal(size=s) / np.sqrt(s[0] if len(s) > 1 else 1e6)
    params = {k: jnp.asarray(draw(s), jnp.float32) for k, s in shapes.items()}
    rest = jnp.zeros((B, N))
    return Model(cell, params, (rest,) * states if states else rest)


def _gated(gates: int) -> Shapes:
    return lambda i, n: {"W": (i, gates * n), "U": (n, gates * n), "b": (gates * n,)}


_plain = lambda i, n: {"W": (i, n), "U": (n, n)}
_stack = lambda i, n: {"W1": (i, n), "W2": (n, n), "W3": (n, n)}

#: Makers of models for I inputs, N neurons, O outputs and B samples.
CELLS: dict[str, Callable[[int, int, int, int], Model]] = {
    "rnn": partial(_model, _rnn, 0, _gated(1)),
    "gru": partial(_model, _gru, 0, _gated(3)),
    "lstm": partial(_model, _lstm, 2, _gated(4)),
    "lif": partial(_model, _lif, 2, _plain),
    "alif": partial(_model, _alif, 3, _plain),
    "three_lif": partial(_model, _three_lif, 3, _stack),
}
