"""Recurrent adaptive LIF neurons on spike trains like those of spoken digits: each class sweeps
through the channels in a way of its own. ES-D-RTRL, one update for a batch of sequences.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace

brainstate.random.seed(5)
n_classes, n_in, n_rec, n_steps, batch_size = 3, 24, 20, 20, 12


def spoken(labels):
    """A formant that starts low, in the middle or high, and rises or falls, with jitter."""
    start = 4.0 + 8.0 * labels + brainstate.random.uniform(-1, 1, labels.shape)
    slope = jnp.where(labels % 2 == 0, 0.3, -0.3)
    centre = start + slope * jnp.arange(n_steps)[:, None]
    rate = 0.7 * jnp.exp(-(((jnp.arange(n_in) - centre[..., None]) / 1.5) ** 2)) + 0.01
    return brainstate.random.bernoulli(rate, size=rate.shape).astype(float)


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        init = braintools.init.KaimingNormal(scale=30.0, unit=u.mA)
        self.linear = braintrace.nn.Linear(
            n_in + n_rec, n_rec, w_init=init, b_init=braintools.init.ZeroInit(unit=u.mA)
        )
        self.neuron = brainpy.state.ALIF(
            n_rec,
            tau=10.0 * u.ms,
            tau_a=50.0 * u.ms,
            R=1.0 * u.ohm,
            beta=0.1 * u.mV,
            V_th=1.0 * u.mV,
            V_reset=0.0 * u.mV,
            V_rest=0.0 * u.mV,
            spk_fun=braintools.surrogate.ReluGrad(),
            spk_reset="soft",
        )
        self.readout = braintrace.nn.LeakyRateReadout(n_rec, n_classes, tau=10.0 * u.ms)

    def update(self, spikes):
        both = jnp.concatenate([spikes, self.neuron.get_spike()], axis=-1)
        self.neuron(self.linear(both))
        return self.readout(self.neuron.get_spike())


with brainstate.environ.context(dt=1.0 * u.ms):
    model = Net()
    example = jnp.zeros((batch_size, n_in))
    learner = braintrace.compile(
        model, braintrace.ES_D_RTRL, example, batch_size=batch_size, decay_or_rank=0.9
    )
    weights = model.states(brainstate.ParamState)
    optimizer = braintools.optim.Adam(2e-2)
    optimizer.register_trainable_weights(weights)

    def train(_):
        labels = brainstate.random.randint(0, n_classes, (batch_size,))
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)

        def step_loss(x):
            out = learner(x)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(out, labels)
            return loss.mean(), out

        grads, losses, outs = learner.etrace_grad(
            spoken(labels), step_fn=step_loss, has_aux=True, return_value=True
        )
        optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        return losses.mean(), jnp.mean(outs.sum(0).argmax(-1) == labels)

    losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(40))

assert losses[-5:].mean() < 0.7 * losses[:5].mean(), losses
assert accuracies[-5:].mean() > 0.75, accuracies
