"""Events of a noisy bar, as a camera for events sees it: a convolution into leaky neurons that
spike, a leaky readout, whether the bar stands or lies.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace

brainstate.random.seed(15)
size, n_steps, batch_size = 8, 8, 8


def bars(lying):
    """(T, B, H, W, 1): a bar that trembles about its place, with noise."""
    place = brainstate.random.randint(1, size - 1, (n_steps, batch_size))
    place = place[:1] + brainstate.random.randint(-1, 2, place.shape)
    line = jnp.where(jnp.arange(size) == place[..., None], 0.9, 0.02)
    shape = (n_steps, batch_size, size, size)
    standing = jnp.broadcast_to(line[..., None, :], shape)
    rate = jnp.where((lying == 1)[:, None, None], jnp.swapaxes(standing, -1, -2), standing)
    return brainstate.random.bernoulli(rate, size=shape).astype(float)[..., None]


class ConvSNN(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        init = braintools.init.KaimingNormal(scale=8.0, unit=u.mA)
        self.conv = braintrace.nn.Conv2d((size, size, 1), 4, 3, stride=2, w_init=init)
        self.neuron = brainpy.state.LIF(
            (4, 4, 4),
            tau=4.0 * u.ms,
            R=1.0 * u.ohm,
            V_th=1.0 * u.mV,
            V_reset=0.0 * u.mV,
            V_rest=0.0 * u.mV,
            spk_fun=braintools.surrogate.ReluGrad(),
            spk_reset="soft",
        )
        self.readout = braintrace.nn.LeakyRateReadout(64, 2, tau=4.0 * u.ms)

    def update(self, events):
        self.neuron(self.conv(events))
        spikes = self.neuron.get_spike()
        return self.readout(spikes.reshape(spikes.shape[0], -1))


with brainstate.environ.context(dt=1.0 * u.ms):
    model = ConvSNN()
    example = jnp.zeros((batch_size, size, size, 1))
    learner = braintrace.compile(
        model, braintrace.pp_prop, example, batch_size=batch_size, decay_or_rank=0.6
    )
    optimizer = braintools.optim.Adam(1e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels

    def train(_):
        lying = brainstate.random.randint(0, 2, (batch_size,))
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)
        grads, losses = learner.etrace_grad(
            bars(lying),
            step_fn=lambda x: cross_entropy(learner(x), lying).mean(),
            return_value=True,
        )
        optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        return losses[-1]

    losses = brainstate.transform.for_loop(train, jnp.arange(60))

assert learner.graph.hidden_groups[0].varshape == (batch_size, 4, 4, 4)
assert jnp.all(jnp.isfinite(losses)) and losses[-10:].mean() < 0.7 * losses[:10].mean(), losses
