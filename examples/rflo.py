"""RFLO on pattern generation: a rate network learns to draw a curve in time, with feedback that
does not know its readout.

As in the paper (Murray, eLife 2019) the units are leaky and rate-coded, and the error comes back
through fixed random weights. A unit keeps its own leak through time and nothing of the others;
D-RTRL does the same with the readout's weights as feedback, BPTT keeps every path. The control
trains the readout alone. One update for each sequence, the same for all rows.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, normal, table, train

import braintrace
from braintrace.checks import bptt_gradient
from braintrace.tasks import pattern_generation

BATCH, WIDTH, LEAK, UPDATES = 8, 64, 0.9, 1500


def cell(p, h, x):
    h = LEAK * h + (1 - LEAK) * jnp.tanh(x @ p["input"] + h @ p["recurrent"] + p["bias"])
    return h, h @ p["readout"]


def initial(key, inputs, outputs):
    keys = jax.random.split(key, 3)
    return {
        "input": normal(keys[0], inputs, WIDTH),
        "recurrent": normal(keys[1], WIDTH, WIDTH, 1.5),
        "bias": jnp.zeros(WIDTH),
        "readout": normal(keys[2], WIDTH, outputs),
    }


def squared_error(out, target):
    return jnp.mean((out - target) ** 2, axis=-1)


def online(params, carry, x, algorithm, **options):
    learner = braintrace.compile(cell, algorithm, x, params=params, carry=carry, **options)

    def gradient(params, trials):
        start = learner.init(params, carry)
        gradients, _, info = learner.etrace_grad(
            params,
            start,
            trials.x,
            trials.y,
            loss_fn=squared_error,
            mask=trials.mask,
            return_state=False,
        )
        zero = jax.tree.map(jnp.zeros_like, params)
        kept = jax.tree.map(
            lambda g, z: z if g is None else g, gradients, zero, is_leaf=lambda g: g is None
        )
        return kept, (info.losses * trials.mask).sum() / trials.mask.sum()

    return gradient


def through_time(carry):
    def gradient(params, trials):
        gradients, losses = bptt_gradient(
            cell, params, carry, trials.x, trials.y, loss_fn=squared_error, mask=trials.mask
        )
        return gradients, (losses * trials.mask).sum() / trials.mask.sum()

    return gradient


def run(gradient, params, trials, updates):
    """`(first and last loss, seconds)`; the task is one curve, so there is nothing new to test
    on.
    """
    params, losses, seconds = train(gradient, params, [trials] * updates, optax.adam(3e-3))
    return losses[0], np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 150 if args.quick else UPDATES
    trials = pattern_generation(BATCH, seed=args.seed)
    params = initial(jax.random.key(args.seed), trials.x.shape[-1], trials.y.shape[-1])
    carry = jnp.zeros((BATCH, WIDTH))
    learning = functools.partial(online, params, carry, trials.x[0])
    rows = [
        ("RFLO", *run(learning("rflo", random_feedback_key=args.seed), params, trials, updates)),
        ("D-RTRL", *run(learning("d_rtrl"), params, trials, updates)),
        ("BPTT", *run(through_time(carry), params, trials, updates)),
        ("readout only", *run(learning("d_rtrl", trainable="readout"), params, trials, updates)),
    ]
    print(table(("method", "first loss", "last loss", "seconds"), *rows))
