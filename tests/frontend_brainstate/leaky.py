"""A leaky layer for the tests of names that users of the PyPI package know."""

import brainstate
import jax.numpy as jnp
from brainstate import nn

T, IN, N, OUT = 6, 3, 4, 2


class Leaky(nn.Module):
    """A leaky tanh layer with recurrent weights and a readout."""

    def __init__(self, recurrent=True):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(IN, N))
        self.r = brainstate.ParamState(0.3 * brainstate.random.randn(N, N) * recurrent)
        self.o = brainstate.ParamState(brainstate.random.randn(N, OUT))

    def init_state(self, batch_size=None):
        self.h = brainstate.HiddenState(jnp.zeros((N,) if batch_size is None else (batch_size, N)))

    def step(self, h, z):
        return jnp.tanh(0.8 * h + z)

    def update(self, x):
        self.h.value = self.step(self.h.value, x @ self.w.value + self.h.value @ self.r.value)
        return self.h.value @ self.o.value


def sequences():
    return brainstate.random.randn(T, IN), brainstate.random.randn(T, OUT)


def gradient(learner, xs, ys, **options):
    learner.reset_state(model=True)
    step_fn = lambda x, y: jnp.sum((learner(x) - y) ** 2)
    return learner.etrace_grad(xs, ys, step_fn=step_fn, reduction="sum", **options)
