"""Flax NNX: a GRU learns to copy a string of symbols, with `nnx.Optimizer` inside `nnx.jit`.

The learner is an NNX module that holds the model: both it and the optimizer are arguments of the
compiled update. D-RTRL takes the gradient in memory that does not grow with the length of the
sequence; BPTT, beside it, scans the same model.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, table
from flax import nnx

import braintrace
from braintrace.tasks import copy_memory

BATCH, WIDTH, SYMBOLS, LENGTH, DELAY, TEST = 64, 64, 4, 3, 10, 512


class Network(nnx.Module):
    def __init__(self, rngs):
        self.cell = nnx.GRUCell(SYMBOLS + 2, WIDTH, rngs=rngs)
        self.readout = nnx.Linear(WIDTH, SYMBOLS, rngs=rngs)

    def __call__(self, carry, x):
        carry, h = self.cell(carry, x)
        return carry, self.readout(h)


def rest(batch):
    return jnp.zeros((batch, WIDTH))


def trials(batch, seed):
    return copy_memory(batch, seed=seed, symbols=SYMBOLS, length=LENGTH, delay=DELAY)


@nnx.jit
def online(learner, optimizer, x, y, mask):
    learner.reset_state(model=True)
    gradients, info = learner.etrace_grad(
        x, y, loss_fn=cross_entropy, mask=mask, return_state=False
    )
    optimizer.update(learner.model, gradients)
    return (info.losses * mask).sum() / mask.sum()


def outputs(model, x):
    graphdef, state = nnx.split(model)
    return jax.lax.scan(lambda h, x: nnx.merge(graphdef, state)(h, x), rest(x.shape[1]), x)[1]


@nnx.jit
def through_time(model, optimizer, x, y, mask):
    def loss(model):
        losses = cross_entropy(outputs(model, x), y)
        return (losses * mask).sum() / mask.sum()

    value, gradients = nnx.value_and_grad(loss)(model)
    optimizer.update(model, gradients)
    return value


def run(method, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    model = Network(nnx.Rngs(seed))
    optimizer = nnx.Optimizer(model, optax.adam(5e-3), wrt=nnx.Param)
    x = jnp.zeros((BATCH, SYMBOLS + 2))
    learning = (
        braintrace.compile(model, "d_rtrl", x, carry=rest(BATCH)) if method is online else model
    )
    if method is online:
        print(learning.report, "\n")
    losses, seconds = [], 0.0
    for k in range(updates):
        batch = trials(BATCH, [seed, k])
        start = time.perf_counter()
        losses.append(float(method(learning, optimizer, *batch)))
        seconds += (k > 0) * (time.perf_counter() - start)
    test = trials(TEST, [seed, updates, 1])
    right = outputs(model, jnp.asarray(test.x)).argmax(-1) == test.y
    return float(right[test.mask > 0].mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 60 if args.quick else 1000
    rows = [
        (name, *run(method, args.seed, updates))
        for name, method in (("D-RTRL", online), ("BPTT", through_time))
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
