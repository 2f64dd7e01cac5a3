"""OSTL with recurrence on delayed XOR: were two pulses, 20 steps apart, different?

A small GRU, as a plain JAX function, learns online with the exact influence of each weight on its
whole layer. For one recurrent layer that is the gradient of BPTT, without going back in time: the
comparison printed first says so. D-RTRL, which leaves out the paths from neuron to neuron, is shown
beside it.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, normal, table, train

import braintrace
from braintrace.checks import bptt_gradient
from braintrace.tasks import delayed_xor

BATCH, N, CHANNELS, TEST = 64, 16, 2, 512


def cell(p, h, x):
    r, z = jnp.split(
        jax.nn.sigmoid(jnp.concatenate([x, h], -1) @ p["gates"] + p["gates_bias"]), 2, axis=-1
    )
    h = (1 - z) * h + z * jnp.tanh(
        jnp.concatenate([x, r * h], -1) @ p["candidate"] + p["candidate_bias"]
    )
    return h, h @ p["readout"] + p["readout_bias"]


def initial(key):
    """The update gates start with time scales from 1 to 50 steps (Tallec and Ollivier, ICLR
    2018).
    """
    keys = jax.random.split(key, 4)
    scales = jax.random.uniform(keys[3], (N,), minval=1.0, maxval=50.0)
    return {
        "gates": normal(keys[0], CHANNELS + N, 2 * N),
        "gates_bias": jnp.concatenate([jnp.zeros(N), -jnp.log(scales)]),
        "candidate": normal(keys[1], CHANNELS + N, N),
        "candidate_bias": jnp.zeros(N),
        "readout": normal(keys[2], N, 2),
        "readout_bias": jnp.zeros(2),
    }


def mean_loss(losses, trials):
    return (losses * trials.mask).sum() / trials.mask.sum()


def online(learner):
    def gradient(params, trials):
        state = learner.init(params, jnp.zeros((BATCH, N)))
        gradients, _, info = learner.etrace_grad(
            params,
            state,
            trials.x,
            trials.y,
            loss_fn=cross_entropy,
            mask=trials.mask,
            return_state=False,
        )
        return gradients, mean_loss(info.losses, trials)

    return gradient


def through_time(params, trials):
    h = jnp.zeros((BATCH, N))
    gradients, losses = bptt_gradient(
        cell, params, h, trials.x, trials.y, loss_fn=cross_entropy, mask=trials.mask
    )
    return gradients, mean_loss(losses, trials)


def run(gradient, params, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    batches = (delayed_xor(BATCH, seed=[seed, k]) for k in range(updates))
    params, losses, seconds = train(
        gradient, params, batches, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2))
    )
    test = delayed_xor(TEST, seed=[seed, updates, 1])
    logits = jax.lax.scan(lambda h, x: cell(params, h, x), jnp.zeros((TEST, N)), test.x)[1]
    right = (logits.argmax(-1) == test.y)[test.mask > 0]
    return float(right.mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 100 if args.quick else 400
    params, h, trials = (
        initial(jax.random.key(args.seed)),
        jnp.zeros((BATCH, N)),
        delayed_xor(BATCH, seed=args.seed),
    )
    ostl, d_rtrl = (
        braintrace.compile(cell, name, trials.x[0], params=params, carry=h)
        for name in ("ostl_recurrent", "d_rtrl")
    )
    state = ostl.init(params, h)
    print(
        ostl.check_gradients(
            params, state, trials.x, trials.y, loss_fn=cross_entropy, mask=trials.mask
        ),
        "\n",
    )
    methods = {"OSTL": online(ostl), "BPTT": through_time, "D-RTRL": online(d_rtrl)}
    rows = [
        (name, *run(gradient, params, args.seed, updates)) for name, gradient in methods.items()
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
