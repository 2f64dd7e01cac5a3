"""The networks: a vanilla tanh network, a GRU, adaptive spiking neurons, an LRU."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from braintrace._compare._cells import spike

NEURONS = 64
_LEAK, _ADAPTATION = 0.9, 0.98


@dataclasses.dataclass(frozen=True)
class Network:
    """A cell, its parameters from (key, inputs, neurons, outputs), and its first carry from
    (samples, neurons, outputs); `leak`: of a neuron's memory, where a rule asks for one.
    """

    cell: Callable[[PyTree, PyTree, Array], tuple[PyTree, Array]]
    params: Callable[[Array, int, int, int], dict[str, Array]]
    carry: Callable[[int, int, int], PyTree]
    leak: float


def _normal(key: Array, rows: int, columns: int, scale: float = 1.0) -> Array:
    return scale * jax.random.normal(key, (rows, columns)) / jnp.sqrt(rows)


def _gated(gates: int, recurrent: float = 1.0) -> Callable[..., dict[str, Array]]:
    def params(key: Array, inputs: int, neurons: int, outputs: int) -> dict[str, Array]:
        w, u, o = jax.random.split(key, 3)
        return {
            "W": _normal(w, inputs, gates * neurons),
            "U": _normal(u, neurons, gates * neurons, recurrent),
            "b": jnp.zeros(gates * neurons),
            "o": _normal(o, neurons, outputs),
        }

    return params


def _tanh(p: PyTree, h: Array, x: Array) -> tuple[Array, Array]:
    h = jnp.tanh(x @ p["W"] + h @ p["U"] + p["b"])
    return h, h @ p["o"]


def _gru(p: PyTree, h: Array, x: Array) -> tuple[Array, Array]:
    from_x, from_h, two = x @ p["W"] + p["b"], h @ p["U"], 2 * h.shape[-1]
    r, z = jnp.split(jax.nn.sigmoid(from_x[:, :two] + from_h[:, :two]), 2, -1)
    n = jnp.tanh(from_x[:, two:] + r * from_h[:, two:])
    h = (1 - z) * n + z * h
    return h, h @ p["o"]


def _alif(p: PyTree, carry: PyTree, x: Array) -> tuple[PyTree, Array]:
    """The readout leaks, too: spikes alone say little of a real target."""
    v, a, y = carry
    z = spike(v - 1 - 0.2 * a)
    a = _ADAPTATION * a + z
    v = _LEAK * v + x @ p["W"] + z @ p["U"] + p["b"] - jax.lax.stop_gradient(z)
    y = _LEAK * y + (1 - _LEAK) * spike(v - 1 - 0.2 * a) @ p["o"]
    return (v, a, y), y


def _lru_params(key: Array, inputs: int, neurons: int, outputs: int) -> dict[str, Array]:
    """Radii in [0.4, 0.99], phases in [0, pi/4]; gamma normalises the input of each unit."""
    radius, phase, *others = jax.random.split(key, 6)
    r = jnp.sqrt(jax.random.uniform(radius, (neurons,), minval=0.4**2, maxval=0.99**2))
    re, im, o_re, o_im = others
    return {
        "nu": jnp.log(-jnp.log(r)),
        "theta": jnp.log(jax.random.uniform(phase, (neurons,), minval=0.01, maxval=jnp.pi / 4)),
        "gamma": 0.5 * jnp.log(1 - r**2),
        "B_re": _normal(re, inputs, neurons) / jnp.sqrt(2),
        "B_im": _normal(im, inputs, neurons) / jnp.sqrt(2),
        "o": _normal(o_re, neurons, outputs),
        "o_im": _normal(o_im, neurons, outputs),
    }


def _lru(p: PyTree, h: Array, x: Array) -> tuple[Array, Array]:
    """Zucchet et al. 2023, eq. 2: a diagonal complex recurrence under a linear readout."""
    decay = jnp.exp(-jnp.exp(p["nu"]) + 1j * jnp.exp(p["theta"]))
    h = decay * h + jnp.exp(p["gamma"]) * (x @ p["B_re"] + 1j * (x @ p["B_im"]))
    return h, h.real @ p["o"] - h.imag @ p["o_im"]


def _zeros(samples: int, neurons: int, outputs: int) -> Array:
    return jnp.zeros((samples, neurons))


def _alif_zeros(samples: int, neurons: int, outputs: int) -> PyTree:
    return (*jnp.zeros((2, samples, neurons)), jnp.zeros((samples, outputs)))


def _lru_zeros(samples: int, neurons: int, outputs: int) -> Array:
    return jnp.zeros((samples, neurons), complex)


NETWORKS = {
    "tanh": Network(_tanh, _gated(1, 0.9), _zeros, 0.0),
    "gru": Network(_gru, _gated(3), _zeros, 0.5),
    "alif": Network(_alif, _gated(1, 0.5), _alif_zeros, _LEAK),
    "lru": Network(_lru, _lru_params, _lru_zeros, 0.9),
}
