"""Japanese Vowels for feedforward spiking networks: which of nine men is speaking? Every frame is
asked; all frames decide.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import cross_entropy, normal, spike, train

from braintrace.checks import bptt_gradient
from braintrace.tasks import japanese_vowels, minibatches

BATCH, COEFFICIENTS, SPEAKERS = 30, 12, 9


def lif_network(widths, leak, leaky_readout=False):
    """`(cell, initial parameters of a key, carry of a batch)`: layers of LIF neurons that feed each
    other, and a readout.

    A neuron's spike lowers its own potential by the threshold 1; no gradient goes through that. The
    readout is memoryless, or a leaky sum with the leak of the neurons.
    """

    def cell(p, carry, x):
        new = []
        for layer, v in zip(p["layers"], carry, strict=False):
            v = (
                leak * (v - jax.lax.stop_gradient(spike(v - 1)))
                + x @ layer["weight"]
                + layer["bias"]
            )
            x = spike(v - 1)
            new.append(v)
        out = x @ p["readout"]
        if leaky_readout:
            new.append(out := leak * carry[-1] + out)
        return new, out

    def initial(key):
        keys = jax.random.split(key, len(widths) + 1)
        shapes = zip(keys, (COEFFICIENTS, *widths), widths, strict=False)
        layers = [
            {"weight": normal(key, inputs, n), "bias": jnp.zeros(n)} for key, inputs, n in shapes
        ]
        return {"layers": layers, "readout": normal(keys[-1], widths[-1], SPEAKERS)}

    def carry(batch):
        return [jnp.zeros((batch, n)) for n in (*widths, *[SPEAKERS] * leaky_readout)]

    return cell, initial, carry


def epochs(data, count, seed):
    """The minibatches of `count` epochs, with noise on the frames."""
    random = np.random.default_rng(seed)
    for epoch in range(count):
        for batch in minibatches(data.train, BATCH, seed=seed, epoch=epoch):
            noise = 0.3 * random.standard_normal(batch.x.shape) * batch.mask[..., None]
            yield batch._replace(x=(batch.x + noise).astype(np.float32))


def wanted(batch):
    """The label at every step, (T, B), and its weight."""
    return jnp.broadcast_to(batch.label, batch.mask.shape), jnp.asarray(batch.mask, jnp.float32)


def mean_loss(losses, weight):
    return (losses * weight).sum() / weight.sum()


def through_time(cell, carry):
    """BPTT's gradient function for `train`."""

    def gradient(params, batch):
        label, weight = wanted(batch)
        gradients, losses = bptt_gradient(
            cell, params, carry, batch.x, label, loss_fn=cross_entropy, mask=weight
        )
        return gradients, mean_loss(losses, weight)

    return gradient


def online(learner, carry):
    """A learner's gradient function for `train`."""

    def gradient(params, batch):
        label, weight = wanted(batch)
        gradients, _, info = learner.etrace_grad(
            params,
            learner.init(params, carry),
            batch.x,
            label,
            loss_fn=cross_entropy,
            mask=weight,
            return_state=False,
        )
        return gradients, mean_loss(info.losses, weight)

    return gradient


def accuracy(cell, params, carry, sequences):
    """Of the log-probabilities of all frames, summed."""
    logits = jax.lax.scan(
        lambda c, x: cell(params, c, x), carry(len(sequences.label)), sequences.x
    )[1]
    evidence = (jax.nn.log_softmax(logits) * sequences.mask[..., None]).sum(0)
    return float((evidence.argmax(-1) == sequences.label).mean())


def run(cell, params, carry, gradient, args, rate=5e-3, epoch_count=60):
    """`(test accuracy, first and last loss, seconds)` of learning with one update per batch."""
    data = japanese_vowels()
    batches = epochs(data, 2 if args.quick else epoch_count, args.seed)
    params, losses, seconds = train(gradient, params, batches, optax.adam(rate))
    return (
        accuracy(cell, params, carry, data.test),
        float(np.mean(losses[:9])),
        float(np.mean(losses[-9:])),
        seconds,
    )


HEADING = ("method", "test accuracy", "first loss", "last loss", "seconds")
