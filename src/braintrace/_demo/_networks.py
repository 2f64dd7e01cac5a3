"""The networks of the demo: plain brainstate modules of one step, which know nothing of online
learning.
"""

import math
from collections.abc import Callable

import brainstate
import jax
import jax.numpy as jnp

COEFFICIENTS = 12
SPEAKERS = 9
FRAME = 6.4  # ms from one frame of the recordings to the next


class GRU(brainstate.nn.Module):
    """A gated recurrent layer and a linear readout."""

    def __init__(self, width: int):
        super().__init__()
        self.cell = brainstate.nn.GRUCell(COEFFICIENTS, width)
        self.readout = brainstate.nn.Linear(width, SPEAKERS)

    def update(self, x: jax.Array) -> jax.Array:
        return self.readout(self.cell(x))


class ALIF(brainstate.nn.Module):
    """Recurrent spiking neurons with an adaptive threshold, and a readout of their low-pass
    filtered spikes.

    A neuron fires when its potential V exceeds 1 + 0.2 a. Its spike lowers V by 1, raises a by 1,
    and enters r.
    """

    def __init__(self, width: int):
        super().__init__()
        self.width = width
        taus = (20.0, 100.0, 20.0)  # ms: of potential, adaptation and filter
        self.decay, self.decay_a, self.decay_r = (math.exp(-FRAME / tau) for tau in taus)
        self.input = brainstate.nn.Linear(COEFFICIENTS, width, w_init=_normal(1.0))
        self.recurrent = brainstate.nn.Linear(width, width, w_init=_normal(0.5), b_init=None)
        self.readout = brainstate.nn.Linear(width, SPEAKERS)

    def init_state(self, batch_size: int | None = None, **_: object) -> None:
        self.V, self.a, self.r = (brainstate.HiddenState(self._rest(batch_size)) for _ in range(3))

    def reset_state(self, batch_size: int | None = None, **_: object) -> None:
        for state in (self.V, self.a, self.r):
            state.value = self._rest(batch_size)

    def _rest(self, batch_size: int | None) -> jax.Array:
        return jnp.zeros((self.width,) if batch_size is None else (batch_size, self.width))

    def update(self, x: jax.Array) -> jax.Array:
        z = self._fire()  # of the step before
        self.a.value = self.decay_a * self.a.value + z
        self.V.value = self.decay * self.V.value - z + self.input(x) + self.recurrent(z)
        self.r.value = self.decay_r * self.r.value + (1 - self.decay_r) * self._fire()
        return self.readout(self.r.value)

    def _fire(self) -> jax.Array:
        return spike(self.V.value - 1 - 0.2 * self.a.value)


def _normal(gain: float) -> Callable[..., jax.Array]:
    """Normal weights with standard deviation gain / sqrt(inputs)."""

    std = lambda shape: gain / math.sqrt(shape[0])
    return lambda shape, **_: std(shape) * brainstate.random.randn(*shape)


@jax.custom_jvp
def spike(v: jax.Array) -> jax.Array:
    """1 above the threshold, 0 below; its derivative is taken to be the triangle 0.5 max(0, 1 -
    |v|).
    """
    return (v > 0).astype(v.dtype)


spike.defjvp(lambda p, t: (spike(p[0]), 0.5 * jnp.maximum(0, 1 - jnp.abs(p[0])) * t[0]))
