"""A network with the degrees of a brain: 5,000 neurons, half a million synapses, all of them
trained online so that each region fires at a rate of its own.

In- and out-degrees are log-normal. 70 % of the neurons are excitatory, and each synapse keeps the
sign of its neuron (Dale). Spikes are events, so that a silent neuron costs nothing, in the gradient
neither; pp_prop keeps two numbers for each neuron, BPTT the spikes of all steps. `python -m
benchmarks.connectome` does the same at the size of a fly's brain.
"""

import brainevent
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, spike, table, train

import braintrace
from braintrace.checks import bptt_gradient

NEURONS, SYNAPSES, REGIONS, STEPS, LEAK, TARGET = 5_000, 500_000, 8, 50, 0.95, 0.02


def network(seed):
    """(synapses as a matrix of ones, the sign of each, region of each neuron, drive)."""
    random = np.random.default_rng(seed)
    share = lambda: (of := random.lognormal(0, 1, NEURONS)) / of.sum()
    senders = np.repeat(np.arange(NEURONS), random.multinomial(SYNAPSES, share()))
    pairs = np.unique(senders * NEURONS + random.choice(NEURONS, len(senders), p=share()))
    senders, receivers = np.divmod(pairs, NEURONS)
    starts = np.searchsorted(senders, np.arange(NEURONS + 1))
    integers = [jnp.asarray(v, jnp.int32) for v in (receivers, starts)]
    matrix = brainevent.CSR((jnp.ones(len(pairs)), *integers), shape=(NEURONS, NEURONS))
    sign = jnp.where(jnp.asarray(senders) < 0.7 * NEURONS, 1.0, -2.0)
    drive = jnp.asarray(random.normal(0.035, 0.015, NEURONS), jnp.float32)
    return matrix, sign, jnp.asarray(random.integers(REGIONS, size=NEURONS)), drive


def main():
    options = arguments(__doc__)
    matrix, sign, region, drive = network(options.seed)
    sizes = jnp.bincount(region, length=REGIONS)

    def cell(weights, carry, x):
        v, rate = carry
        z = spike(v - 1)
        current = brainevent.BinaryArray(z) @ matrix.with_data(sign * weights)
        v = LEAK * v - jax.lax.stop_gradient(z) + x * drive + current
        now = jax.ops.segment_sum(spike(v - 1), region, REGIONS) / sizes
        rate = 0.9 * rate + 0.1 * now
        return (v, rate), rate

    random = np.random.default_rng(options.seed + 1)
    weights = jnp.asarray(random.gamma(2, 0.02, matrix.nse), jnp.float32)
    carry = jnp.asarray(random.random(NEURONS), jnp.float32), jnp.zeros(REGIONS)
    wanted = jnp.broadcast_to(TARGET * (0.5 + jnp.arange(REGIONS) / REGIONS), (STEPS, REGIONS))
    xs = jnp.ones(STEPS)
    loss_fn = lambda rate, target: jnp.mean(((rate - target) / TARGET) ** 2)
    learner = braintrace.compile(
        cell, "pp_prop", xs[0], params=weights, carry=carry, decay_or_rank=LEAK
    )
    print(learner.report)

    def online(weights, _):
        state = learner.init(weights, carry)
        gradient, _, info = learner.etrace_grad(weights, state, xs, wanted, loss_fn=loss_fn)
        return gradient, info.losses.mean()

    def through_time(weights, _):
        gradient, losses = bptt_gradient(cell, weights, carry, xs, wanted, loss_fn=loss_fn)
        return gradient, losses.mean()

    lines, updates = [("method", "first loss", "last loss", "seconds")], 4 if options.quick else 30
    for name, gradient in (("pp_prop", online), ("BPTT", through_time)):
        optimizer = optax.chain(optax.adam(2e-3), optax.keep_params_nonnegative())
        _, losses, seconds = train(gradient, weights, range(updates), optimizer)
        lines.append((name, losses[0], losses[-1], seconds))
    print(table(*lines))


if __name__ == "__main__":
    main()
