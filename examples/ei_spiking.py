"""Excitatory and inhibitory spiking neurons with sparse connections count cues: evidence
accumulation.

80 excitatory and 20 inhibitory neurons, a brainstate module. A neuron's weights have its own sign
(Dale's principle), a tenth of the connections exists, and only these have traces. Half of the
excitatory neurons adapt: their thresholds remember the cues. No trace passes the reset
(`braintrace.stop_trace`); BPTT, beside D-RTRL, passes it. The trial is short: 3 cues, a delay, a
decision.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, module_through_time, spike, table, train_module
from jax.experimental.sparse import BCOO

import braintrace
from braintrace.tasks import evidence_accumulation

BATCH, CHANNELS, E, I, DENSITY, TEST = 64, 40, 80, 20, 0.1, 512
N = E + I
LEAK, SLOW, KAPPA = (float(np.exp(-1 / tau)) for tau in (20.0, 200.0, 20.0))
ADAPTS = np.where(np.arange(N) < E // 2, 0.2, 0.0).astype(np.float32)
SIGN = np.where(np.arange(N) < E, 1.0, -1.0).astype(np.float32)


class Synapses(brainstate.nn.Module):
    """Sparse weights of a fixed sign: |w| for each connection that exists, with the sign of the
    neuron that it comes from.
    """

    def __init__(self, sign, outputs, density, gain):
        super().__init__()
        exists = np.asarray(brainstate.random.rand(len(sign), outputs) < density)
        self.ends, self.shape = np.argwhere(exists), exists.shape
        self.sign = np.asarray(sign, np.float32)[self.ends[:, 0]]
        scale = gain / np.sqrt(density * len(sign))
        self.w = brainstate.ParamState(scale * jnp.abs(brainstate.random.randn(len(self.ends))))

    def update(self, z):
        return z @ BCOO((jnp.abs(self.w.value) * self.sign, self.ends), shape=self.shape)


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.feed = brainstate.ParamState(
            1.5 / np.sqrt(CHANNELS) * brainstate.random.randn(CHANNELS, N)
        )
        self.recurrent = Synapses(SIGN * np.where(np.arange(N) < E, 1.0, 3.0), N, DENSITY, 0.2)
        self.readout = Synapses(np.ones(E), 2, 1.0, 0.5)

    def init_state(self, batch_size):
        self.v = brainstate.HiddenState(jnp.zeros((batch_size, N)))
        self.a = brainstate.HiddenState(jnp.zeros((batch_size, N)))
        self.y = brainstate.HiddenState(jnp.zeros((batch_size, 2)))

    def fire(self):
        return spike(self.v.value - 1 - ADAPTS * self.a.value, 0.3)

    def update(self, x):
        z = self.fire()  # of the step before
        current = x @ self.feed.value + self.recurrent(z)
        self.v.value = LEAK * self.v.value + current - braintrace.stop_trace(z)
        self.a.value = SLOW * self.a.value + z
        self.y.value = KAPPA * self.y.value + self.readout(self.fire()[:, :E])
        return self.y.value


def trials(batch, seed):
    return evidence_accumulation(
        batch, seed=seed, cues=3, cue=20, slot=30, delay=30, recall=20, rate=0.2, background=0.05
    )


def online(model):
    learner = braintrace.compile(model, "d_rtrl", jnp.zeros((BATCH, CHANNELS)), batch_size=BATCH)
    print(learner.report, "\n")

    def gradient(trials):
        learner.reset_state(model=True)
        return learner.etrace_grad(
            trials.x,
            trials.y,
            step_fn=lambda x, y: cross_entropy(learner(x), y),
            mask=trials.mask,
            loss_output="total",
            return_value=True,
            return_state=False,
        )

    return gradient


def through_time(model):
    return lambda trials: module_through_time(model, BATCH, trials.y, trials.mask, trials.x)


def run(method, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    brainstate.random.seed(seed)
    model = Network()
    batches = (trials(BATCH, [seed, k]) for k in range(updates))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    losses, seconds = train_module(model, method(model), batches, optimizer)
    test = jax.tree.map(jnp.asarray, trials(TEST, [seed, updates, 1]))
    brainstate.nn.init_all_states(model, batch_size=TEST)
    right = brainstate.transform.for_loop(model, test.x).argmax(-1) == test.y
    return float(right[test.mask > 0].mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 40 if args.quick else 200
    rows = [
        (name, *run(method, args.seed, updates))
        for name, method in (("D-RTRL", online), ("BPTT", through_time))
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
