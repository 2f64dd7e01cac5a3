"""A regression that never ends: the learner follows 16 streams at once, and each stream is
reset when its episode ends.

A stream is a random input under three unknown leaky filters with a squashing output, which a layer
of leaky units has to imitate.
There is no last step: each piece of 50 steps is learned from and forgotten, and carry and traces go
on into the next piece. Episodes end at random, in each sample at another time: `reset` sets that
sample's carry and traces to zero, and the others go on.
Rows: what is learned from the streams with D-RTRL, and from each step alone (every parameter
    excluded from the traces).
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, normal, table

import braintrace

BATCH, WIDTH, CHANNELS, PIECE, EPISODE = 16, 32, 3, 50, 200


def cell(params, h, x):
    z = jax.nn.sigmoid(params["leak"])
    h = z * h + (1 - z) * jnp.tanh(x @ params["input"] + h @ params["recurrent"] + params["bias"])
    return h, h @ params["readout"]


def initial(key):
    keys = jax.random.split(key, 4)
    return {
        "leak": jax.random.uniform(keys[0], (WIDTH,), minval=-1.0, maxval=1.0),
        "bias": jnp.zeros(WIDTH),
        "input": normal(keys[1], CHANNELS, WIDTH),
        "recurrent": normal(keys[2], WIDTH, WIDTH, 0.5),
        "readout": normal(keys[3], WIDTH, 1),
    }


def rest():
    return jnp.zeros((BATCH, WIDTH))


def stream(seed):
    """Endless pieces `(x, y, reset)`: (PIECE, BATCH, CHANNELS), (PIECE, BATCH, 1), and (PIECE,
    BATCH) bool.
    """
    random = np.random.default_rng(seed)
    leaks, gains = np.array([0.97, 0.9, 0.6]), np.array([0.6, 0.8, 1.0])
    memory = np.zeros((BATCH, CHANNELS))
    while True:
        x = random.normal(size=(PIECE, BATCH, CHANNELS))
        reset = random.random((PIECE, BATCH)) < 1 / EPISODE
        y = np.empty((PIECE, BATCH, 1))
        for t in range(PIECE):
            memory = leaks * np.where(reset[t][:, None], 0, memory) + np.sqrt(1 - leaks**2) * x[t]
            y[t, :, 0] = np.tanh(memory @ gains)
        yield x.astype(np.float32), y.astype(np.float32), reset


def squared_error(out, y):
    return jnp.sum((out - y) ** 2, axis=-1)


def run(seed, pieces, **options):
    """`(first loss, last loss, seconds)`; a loss is the mean squared error of the ten first and of
    the ten last pieces.
    """
    params = initial(jax.random.key(seed))
    learner = braintrace.compile(
        cell, "d_rtrl", jnp.zeros((BATCH, CHANNELS)), params=params, carry=rest(), **options
    )
    print(learner.report, "\n")
    optimizer = optax.adam(3e-3)

    @jax.jit
    def update(params, state, moments, piece):
        x, y, reset = piece
        gradients, state, info = learner.etrace_grad(
            params, state, x, y, loss_fn=squared_error, reset=reset
        )
        updates, moments = optimizer.update(gradients, moments, params)
        return optax.apply_updates(params, updates), state, moments, info.losses.mean()

    state, moments, losses, seconds = learner.init(params, rest()), optimizer.init(params), [], 0.0
    for k, piece in zip(range(pieces), stream(seed), strict=False):
        start = time.perf_counter()
        params, state, moments, loss = update(params, state, moments, piece)
        losses.append(float(loss))
        seconds += (k > 0) * (time.perf_counter() - start)
    return np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    pieces = 100 if args.quick else 2000
    rows = [
        ("D-RTRL", *run(args.seed, pieces)),
        ("each step alone", *run(args.seed, pieces, exclude="*")),
    ]
    print(table(("method", "first loss", "last loss", "seconds"), *rows))
