"""Two layers of adaptive LIF neurons with units on spoken-digit-like events, in the coarse bins
that experiments with 700 channels use; the class is read from a leaky output. pp_prop.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace

brainstate.random.seed(2)
n_words, n_bins, n_hidden, n_steps, batch_size = 3, 28, 16, 16, 12


def words(labels):
    """700 channels in bins of 25: a word is a burst that rises or falls from its own channel."""
    time = jnp.arange(n_steps)[:, None]
    centre = 120 + 230 * labels + jnp.where(labels == 1, -8, 8) * (time - n_steps / 2)
    channel = 25 * jnp.arange(n_bins) + 12
    rate = 0.6 * jnp.exp(-(((channel - centre[..., None]) / 60) ** 2)) + 0.02
    return brainstate.random.bernoulli(rate, size=rate.shape).astype(float)


class Layer(brainstate.nn.Module):
    def __init__(self, n_in, n_out, tau_a):
        super().__init__()
        self.weight = braintrace.nn.Linear(
            n_in,
            n_out,
            w_init=braintools.init.KaimingNormal(scale=150.0, unit=u.mA),
            b_init=braintools.init.ZeroInit(unit=u.mA),
        )
        self.neuron = brainpy.state.ALIF(
            n_out, tau=8.0 * u.ms, tau_a=tau_a, beta=0.2 * u.mV, spk_reset="soft"
        )

    def update(self, spikes):
        self.neuron(self.weight(spikes))
        return self.neuron.get_spike()


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Layer(n_bins, n_hidden, 30.0 * u.ms)
        self.second = Layer(n_hidden, n_hidden, 80.0 * u.ms)
        self.readout = braintrace.nn.LeakyRateReadout(n_hidden, n_words, tau=5.0 * u.ms)

    def update(self, spikes):
        return self.readout(self.second(self.first(spikes)))


class Trainer:
    def __init__(self, learning_rate):
        self.model = Net()
        self.learner = braintrace.compile(
            self.model,
            braintrace.pp_prop,
            jnp.zeros((batch_size, n_bins)),
            batch_size=batch_size,
            decay_or_rank=0.85,
        )
        self.optimizer = braintools.optim.Adam(learning_rate)
        self.optimizer.register_trainable_weights(self.model.states(brainstate.ParamState))

    def epoch(self, _):
        labels = brainstate.random.randint(0, n_words, (batch_size,))
        brainstate.nn.reset_all_states(self.model, batch_size=batch_size)
        self.learner.reset_state(batch_size=batch_size)

        def step_loss(x):
            out = self.learner(x)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(out, labels)
            return loss.mean(), out

        grads, losses, outs = self.learner.etrace_grad(
            words(labels), step_fn=step_loss, has_aux=True, return_value=True
        )
        self.optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        return losses.mean(), jnp.mean(outs.sum(0).argmax(-1) == labels)


with brainstate.environ.context(dt=1.0 * u.ms):
    trainer = Trainer(3e-2)
    losses, accuracies = brainstate.transform.for_loop(trainer.epoch, jnp.arange(40))

assert losses[-5:].mean() < 0.7 * losses[:5].mean(), losses
assert accuracies[-5:].mean() > 0.7, accuracies
