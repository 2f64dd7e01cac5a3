"""A gated layer, its learners, and their gradients by windows and by steps."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid

import braintrace
from zoo._case import keep

from .cells import IN, OUT, B, N, data, sample_loss

ZERO = jnp.zeros((B, N))
WINDOWS = [1, 3, None]


def weights(**shapes):
    rng = np.random.default_rng(2)
    return {name: jnp.asarray(0.6 * rng.standard_normal(shape)) for name, shape in shapes.items()}


PARAMS = weights(w=(IN, N), u=(N, N), a=(N,), out=(N, OUT), b=(OUT,))


def step(p, h, x, old=keep, mix=keep):
    """A gated layer: `a` scales a path from each unit to itself, `u` is recurrent."""
    drive = mix(x) @ p["w"] + mix(old(h)) @ p["u"]
    h = sigmoid(p["a"]) * h + jnp.tanh(drive)
    return h, h @ p["out"] + p["b"]


def compiled(cell=step, params=PARAMS, carry=ZERO, algorithm="d_rtrl", **options):
    return braintrace.compile(
        lambda p, c, x: cell(p, c, x),
        algorithm,
        data()[0][0],
        params=params,
        carry=carry,
        **options,
    )


def gradient(learner, window, params=PARAMS, carry=ZERO):
    xs, ys = data()
    start = learner.init(params, carry)
    return learner.etrace_grad(
        params, start, xs, ys, loss_fn=sample_loss, window=window, reduction="sum"
    )[0]


def stepwise(learner, params=PARAMS, carry=ZERO):
    state, total = learner.init(params, carry), None
    for x, y in zip(*data(), strict=True):

        def loss(params, state=state, x=x, y=y):
            state, out = learner.update(params, state, x)
            return sample_loss(out, y).sum(), state

        one, state = jax.grad(loss, has_aux=True)(params)
        total = one if total is None else jax.tree.map(jnp.add, total, one)
    return total
