"""Brainstate models, data for them, and the gradient that every driver must give."""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
from brainstate import nn

# N is not 5: there, in float64, XLA's CPU compiler of jaxlib 0.10.2 gives wrong values for an
# LSTM's step on machines with AVX-512 (right with --xla_cpu_max_isa=AVX2, without fusion, without
# jit, and in later releases).
T, B, IN, N, OUT = 7, 4, 3, 6, 2


class Readout(nn.Module):
    """A cell under a linear readout."""

    def __init__(self, cell=nn.GRUCell, n_in=IN):
        super().__init__()
        self.rnn = cell(n_in, N)
        self.out = nn.Linear(N, OUT)

    def update(self, x):
        return self.out(self.rnn(x))


class Embedded(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(6, IN)
        self.net = Readout()

    def update(self, index):
        return self.net(self.table(index))


class Convolved(nn.Module):
    """A leaky feature map under a convolution with units in between."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d((4, 4, 2), 3, 3)
        self.out = nn.Linear(48, OUT)

    def init_state(self, batch_size=None):
        shape = (4, 4, 3) if batch_size is None else (batch_size, 4, 4, 3)
        self.v = brainstate.HiddenState(jnp.zeros(shape) * u.mV)

    def update(self, x):
        self.v.value = 0.8 * self.v.value + jnp.tanh(self.conv(x)) * u.mV
        v = self.v.value / u.mV
        return self.out(v.reshape(*v.shape[:-3], -1))


class Dropped(nn.Module):
    """Random numbers inside the step, from brainstate's default key."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRUCell(IN, N)
        self.out = nn.Linear(N, OUT)

    def update(self, x):
        h = self.rnn(x)
        return self.out(jnp.where(brainstate.random.rand(*h.shape) < 0.5, h, 0.0))


class Normalised(nn.Module):
    """Statistics of the batch in long-term states."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm0d((IN,))
        self.net = Readout()

    def update(self, x):
        return self.net(self.norm(x))


def data(*x_shape, integer=False):
    rng = np.random.default_rng(1)
    xs = rng.integers(0, 6, (T, B)) if integer else rng.standard_normal((T, B, *(x_shape or (IN,))))
    return jnp.asarray(xs), jnp.asarray(rng.standard_normal((T, B, OUT)))


def sample_loss(out, target):
    return jnp.sum(jnp.square(out - target), axis=-1)


def total_loss(out, target):
    return jnp.sum(sample_loss(out, target))


def step_by_step(learner, xs, ys, loss=total_loss, weights=None):
    """The sum of the gradients that brainstate's own transformation takes through the learner's
    calls.
    """
    states = learner.model.states(brainstate.ParamState) if weights is None else weights
    gradient = brainstate.transform.grad(lambda x, y: loss(learner(x), y), states)
    total = None
    for x, y in zip(xs, ys, strict=True):
        one = gradient(x, y)
        total = one if total is None else jax.tree.map(jnp.add, total, one)
    return total


def hidden(learner):
    return {
        path: state.value for path, state in learner.model.states(brainstate.HiddenState).items()
    }


def reset_learner(learner, seed=3):
    learner.reset_state(model=True)
    brainstate.random.seed(seed)


def assert_close(a, b, tolerance=1e-10):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(
            x, y, rtol=tolerance, atol=tolerance * max(1.0, float(jnp.abs(y).max()))
        )
