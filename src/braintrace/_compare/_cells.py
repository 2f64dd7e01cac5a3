"""Networks of one or three layers with a readout, as plain functions, for comparisons and
benchmarks.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


@dataclasses.dataclass(frozen=True)
class Model:
    """A cell with its parameters and its first carry, for B samples, I inputs, N neurons a layer
    and O outputs.
    """

    cell: Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]
    params: PyTree
    carry: PyTree
    leak: float  # of the neurons' membrane, where there is one


@jax.custom_jvp
def spike(v: jax.Array) -> jax.Array:
    """1 where v > 0, else 0; its derivative is replaced by `0.3 max(0, 1 - |v|)`."""
    return (v > 0).astype(v.dtype)


spike.defjvp(lambda p, t: (spike(p[0]), 0.3 * jnp.maximum(0, 1 - jnp.abs(p[0])) * t[0]))


def _draw(seed: int, **shapes: tuple[int, ...]) -> dict[str, jax.Array]:
    random = np.random.default_rng(seed)
    return {
        k: jnp.asarray(random.normal(size=s) / np.sqrt(s[0] if len(s) > 1 else 1e6), jnp.float32)
        for k, s in shapes.items()
    }


def rnn(inputs: int, neurons: int, outputs: int, samples: int, seed: int = 0) -> Model:
    """A leaky tanh network: h <- 0.9 h + 0.1 tanh(x W + h U + b)."""

    def cell(p: PyTree, h: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        h = 0.9 * h + 0.1 * jnp.tanh(x @ p["W"] + h @ p["U"] + p["b"])
        return h, h @ p["o"]

    params = _draw(
        seed, W=(inputs, neurons), U=(neurons, neurons), b=(neurons,), o=(neurons, outputs)
    )
    return Model(cell, params, jnp.zeros((samples, neurons)), 0.9)


def gru(inputs: int, neurons: int, outputs: int, samples: int, seed: int = 0) -> Model:
    """A gated recurrent unit, its reset after the product."""

    def cell(p: PyTree, h: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        from_x, from_h = x @ p["W"] + p["b"], h @ p["U"]
        r, z = jnp.split(jax.nn.sigmoid(from_x[:, : 2 * neurons] + from_h[:, : 2 * neurons]), 2, -1)
        n = jnp.tanh(from_x[:, 2 * neurons :] + r * from_h[:, 2 * neurons :])
        h = (1 - z) * n + z * h
        return h, h @ p["o"]

    params = _draw(
        seed,
        W=(inputs, 3 * neurons),
        U=(neurons, 3 * neurons),
        b=(3 * neurons,),
        o=(neurons, outputs),
    )
    return Model(cell, params, jnp.zeros((samples, neurons)), 0.9)


def lstm(inputs: int, neurons: int, outputs: int, samples: int, seed: int = 0) -> Model:
    """A long short-term memory."""

    def cell(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        h, c = carry
        i, f, g, o = jnp.split(x @ p["W"] + h @ p["U"] + p["b"], 4, -1)
        c = jax.nn.sigmoid(f + 1) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h @ p["o"]

    params = _draw(
        seed,
        W=(inputs, 4 * neurons),
        U=(neurons, 4 * neurons),
        b=(4 * neurons,),
        o=(neurons, outputs),
    )
    return Model(cell, params, (jnp.zeros((samples, neurons)),) * 2, 0.9)


def lif(inputs: int, neurons: int, outputs: int, samples: int, seed: int = 0) -> Model:
    """Leaky integrate-and-fire neurons behind exponential synapses."""

    def cell(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        v, g = carry
        z = spike(v - 1)
        g = 0.8 * g + x @ p["W"] + z @ p["U"]
        v = 0.9 * v + 0.5 * g - z
        return (v, g), spike(v - 1) @ p["o"]

    params = _draw(seed, W=(inputs, neurons), U=(neurons, neurons), o=(neurons, outputs))
    return Model(cell, params, (jnp.zeros((samples, neurons)),) * 2, 0.9)


def alif(inputs: int, neurons: int, outputs: int, samples: int, seed: int = 0) -> Model:
    """As `lif`, with an adaptive threshold."""

    def cell(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        v, g, a = carry
        z = spike(v - 1 - 0.2 * a)
        a = 0.98 * a + z
        g = 0.8 * g + x @ p["W"] + z @ p["U"]
        v = 0.9 * v + 0.5 * g - z
        return (v, g, a), spike(v - 1 - 0.2 * a) @ p["o"]

    params = _draw(seed, W=(inputs, neurons), U=(neurons, neurons), o=(neurons, outputs))
    return Model(cell, params, (jnp.zeros((samples, neurons)),) * 3, 0.9)


def three_lif(inputs: int, neurons: int, outputs: int, samples: int, seed: int = 0) -> Model:
    """Three layers of leaky integrate-and-fire neurons that feed each other forward; the reset is
    detached.
    """

    def cell(p: PyTree, carry: PyTree, x: PyTree) -> tuple[PyTree, PyTree]:
        new, z = [], x
        for k, v in enumerate(carry):
            v = 0.9 * v - jax.lax.stop_gradient(spike(v - 1)) + z @ p[f"W{k + 1}"]
            z = spike(v - 1)
            new.append(v)
        return tuple(new), z @ p["o"]

    params = _draw(
        seed,
        W1=(inputs, neurons),
        W2=(neurons, neurons),
        W3=(neurons, neurons),
        o=(neurons, outputs),
    )
    return Model(cell, params, (jnp.zeros((samples, neurons)),) * 3, 0.9)


CELLS: dict[str, Callable[..., Model]] = {
    "rnn": rnn,
    "gru": gru,
    "lstm": lstm,
    "lif": lif,
    "alif": alif,
    "three_lif": three_lif,
}
