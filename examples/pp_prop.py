"""pp_prop (ES-D-RTRL) on delayed match to sample, with spiking neurons and factorised traces.

A recurrent layer of leaky integrate-and-fire neurons, as a plain JAX function. Its membranes forget
slowly, so a stimulus is still there when the second one comes, 50 steps later. pp_prop keeps one
trace per input and one per neuron, where D-RTRL keeps
one per weight: with its decay near the leak of the membrane the two factors carry what the weight's
own trace would. With decay 0 it sees no past. Rows share weights, batches and optimiser.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, normal, spike, table, train

import braintrace
from braintrace.checks import bptt_gradient
from braintrace.tasks import delayed_match_to_sample

BATCH, N, CHANNELS, LEAK, TEST = 64, 100, 20, 0.98, 512


def cell(p, v, x):
    z = spike(v - 1)  # of the step before
    v = LEAK * (v - jax.lax.stop_gradient(z)) + x @ p["input"] + z @ p["recurrent"]
    return v, spike(v - 1) @ p["readout"] + p["bias"]


def initial(key):
    keys = jax.random.split(key, 3)
    weights = {"input": normal(keys[0], CHANNELS, N, 0.3), "recurrent": normal(keys[1], N, N, 0.1)}
    return {**weights, "readout": normal(keys[2], N, 2), "bias": jnp.zeros(2)}


def online(params, decay):
    v = jnp.zeros((BATCH, N))
    learner = braintrace.compile(
        cell, "pp_prop", jnp.zeros((BATCH, CHANNELS)), params=params, carry=v, decay_or_rank=decay
    )

    def gradient(params, trials):
        gradients, _, info = learner.etrace_grad(
            params,
            learner.init(params, v),
            trials.x,
            trials.y,
            loss_fn=cross_entropy,
            mask=trials.mask,
            return_state=False,
        )
        return gradients, (info.losses * trials.mask).sum() / trials.mask.sum()

    return gradient


def through_time(params, trials):
    v = jnp.zeros((BATCH, N))
    gradients, losses = bptt_gradient(
        cell, params, v, trials.x, trials.y, loss_fn=cross_entropy, mask=trials.mask
    )
    return gradients, (losses * trials.mask).sum() / trials.mask.sum()


def readout_only(params, trials):
    gradients, loss = through_time(params, trials)
    return {
        k: g if k in ("readout", "bias") else jnp.zeros_like(g) for k, g in gradients.items()
    }, loss


def run(gradient, params, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    batches = (delayed_match_to_sample(BATCH, seed=[seed, k]) for k in range(updates))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(3e-3))
    params, losses, seconds = train(gradient, params, batches, optimizer)
    test = delayed_match_to_sample(TEST, seed=[seed, updates, 1])
    logits = jax.lax.scan(lambda v, x: cell(params, v, x), jnp.zeros((TEST, N)), test.x)[1]
    right = (logits.argmax(-1) == test.y)[test.mask > 0]
    return float(right.mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 20 if args.quick else 500
    params = initial(jax.random.key(args.seed))
    methods = {f"pp_prop, decay {decay}": online(params, decay) for decay in (LEAK, 0.0)}
    methods |= {"BPTT": through_time, "readout only": readout_only}
    rows = [
        (name, *run(gradient, params, args.seed, updates)) for name, gradient in methods.items()
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
