"""Equinox: an LSTM on delayed match to sample, with optax inside `eqx.filter_jit`.

The module is written for one sample, as Equinox's are, and mapped with `vmap=True`. Its LSTM keeps
what it has seen in its cells,
each of which remembers by itself: D-RTRL follows that path and leaves out those from cell to cell.
"""

import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, table

import braintrace
from braintrace.tasks import delayed_match_to_sample

BATCH, WIDTH, CHANNELS, DELAY, TEST = 64, 32, 20, 50, 512


class Network(eqx.Module):
    cell: eqx.nn.LSTMCell
    readout: eqx.nn.Linear

    def __init__(self, key):
        keys = jax.random.split(key)
        cell = eqx.nn.LSTMCell(CHANNELS, WIDTH, key=keys[0])
        open_gates = cell.bias.at[WIDTH : 2 * WIDTH].set(3.0)  # the cells start by remembering
        self.cell = eqx.tree_at(lambda c: c.bias, cell, open_gates)
        self.readout = eqx.nn.Linear(WIDTH, 2, key=keys[1])

    def __call__(self, x, state):
        h, c = self.cell(x, state)
        return (h, c), self.readout(h)


def rest(batch):
    return jnp.zeros((batch, WIDTH)), jnp.zeros((batch, WIDTH))


def trials(batch, seed):
    return delayed_match_to_sample(batch, seed=seed, delay=DELAY)


def arrays(model):
    return eqx.filter(model, eqx.is_inexact_array)


def outputs(model, x):
    return jax.lax.scan(lambda state, x: jax.vmap(model)(x, state), rest(x.shape[1]), x)[1]


def online(model):
    learner = braintrace.compile(
        model, "d_rtrl", jnp.zeros((BATCH, CHANNELS)), carry=rest(BATCH), vmap=True
    )
    print(learner.report, "\n")

    def gradient(model, x, y, mask):
        state = learner.init(model, rest(BATCH))
        gradients, _, info = learner.etrace_grad(
            model, state, x, y, loss_fn=cross_entropy, mask=mask, return_state=False
        )
        return (info.losses * mask).sum() / mask.sum(), gradients

    return gradient


def through_time(model):
    @eqx.filter_value_and_grad
    def gradient(model, x, y, mask):
        losses = cross_entropy(outputs(model, x), y)
        return (losses * mask).sum() / mask.sum()

    return gradient


def run(method, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    model = Network(jax.random.key(seed))
    gradient = method(model)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))

    @eqx.filter_jit
    def update(model, moments, batch):
        loss, gradients = gradient(model, *batch)
        updates, moments = optimizer.update(gradients, moments, arrays(model))
        return eqx.apply_updates(model, updates), moments, loss

    moments, losses, seconds = optimizer.init(arrays(model)), [], 0.0
    for k in range(updates):
        batch = jax.tree.map(jnp.asarray, tuple(trials(BATCH, [seed, k])))
        start = time.perf_counter()
        model, moments, loss = update(model, moments, batch)
        losses.append(float(loss))
        seconds += (k > 0) * (time.perf_counter() - start)
    test = trials(TEST, [seed, updates, 1])
    right = outputs(model, jnp.asarray(test.x)).argmax(-1) == test.y
    return float(right[test.mask > 0].mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 60 if args.quick else 400
    rows = [
        (name, *run(method, args.seed, updates))
        for name, method in (("D-RTRL", online), ("BPTT", through_time))
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
