"""Cells and modules that another process can import, and learners of them at every front end."""

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import braintrace

B, I, N, O, T = 2, 3, 4, 2, 5
FRONT_ENDS = ("function", "equinox", "nnx", "brainstate")


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(shape).normal(size=shape), jnp.float32)


def xs():
    return drawn(T, B, I)


def loss(out):
    return jnp.sum(jnp.square(out), axis=-1)


def spiking(p, h, x):
    """A leaky layer under a leaky readout: a cell that every algorithm takes."""
    v = 0.5 * h["v"] + x @ p["W"] + p["b"]
    y = 0.5 * h["y"] + jnp.tanh(v) @ p["O"]
    return {"v": v, "y": y}, y


def spiking_parts(samples=B, inputs=I, size=N, outs=O, dtype=jnp.float32):
    """(params, carry, x) of `spiking`."""
    cast = lambda *shape: drawn(*shape).astype(dtype)
    params = {"W": cast(inputs, size), "b": cast(size), "O": cast(size, outs)}
    carry = {"v": jnp.zeros((samples, size), dtype), "y": jnp.zeros((samples, outs), dtype)}
    return params, carry, cast(samples, inputs)


class Leaky(brainstate.nn.Module):
    """`h = 0.9 h + tanh(x W)`."""

    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(drawn(I, N))

    def init_state(self, batch_size=None, **_):
        shape = (N,) if batch_size is None else (batch_size, N)
        self.h = brainstate.HiddenState(jnp.zeros(shape))

    def update(self, x):
        self.h.value = 0.9 * self.h.value + jnp.tanh(x @ self.w.value)
        return self.h.value


class LeakyNNX(nnx.Module):
    """The same with its state in a Variable, and a function of JAX as attribute."""

    def __init__(self):
        self.w, self.h = nnx.Param(drawn(I, N)), nnx.Variable(jnp.zeros((B, N)))
        self.activation = jax.nn.sigmoid

    def __call__(self, x):
        self.h[...] = 0.9 * self.h[...] + self.activation(x @ self.w[...])
        return self.h[...]


class LeakyEquinox(eqx.Module):
    """The same with a carry."""

    w: jax.Array
    activation: object

    def __call__(self, x, h):
        return 0.9 * h + self.activation(x @ self.w)


def learner_of(front_end, algorithm="d_rtrl", **options):
    """(learner, model or params, carry) of one front end; the last two of a pure one."""
    if front_end == "function":
        params, carry, x = spiking_parts()
        given = {"params": params, "carry": carry}
        return braintrace.compile(spiking, algorithm, x, **given, **options), params, carry
    if front_end == "equinox":
        model, carry = LeakyEquinox(drawn(I, N), jax.nn.relu), jnp.zeros((B, N))
        return braintrace.compile(model, algorithm, xs()[0], carry=carry, **options), model, carry
    if front_end == "nnx":
        learner = braintrace.compile(LeakyNNX(), algorithm, xs()[0], **options)
    else:
        learner = braintrace.compile(Leaky(), algorithm, xs()[0], batch_size=B, **options)
    return learner, learner.model, None


def gradient(front_end, learner, model, carry):
    """The leaves of the gradient of a sequence with a reset, from the learner's present state."""
    reset = jnp.zeros((T, B), bool).at[2, 0].set(True)
    if front_end in ("function", "equinox"):
        start = learner.init(model, carry)
        found = learner.etrace_grad(model, start, xs(), loss_fn=loss, reset=reset, window=2)[0]
    elif front_end == "nnx":
        found = learner.etrace_grad(xs(), loss_fn=loss, reset=reset, window=2)[0]
    else:
        step = lambda x: loss(learner(x))
        found = learner.etrace_grad(xs(), step_fn=step, reset=reset, window=2)
    return [np.asarray(v) for v in jax.tree.leaves(found)]
