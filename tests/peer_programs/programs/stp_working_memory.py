"""Working memory in facilitated synapses: recurrent spikes pass through short-term plasticity, and
the item shown before the delay is read out after it. D-RTRL.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(29)
n_items, n_rec, batch_size, cue, delay, probe = 2, 24, 12, 4, 5, 4
n_steps = cue + delay + probe


class FacilitatedNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        current = lambda scale: braintools.init.KaimingNormal(scale=scale, unit=u.mA)
        self.inward = braintrace.nn.Linear(n_items + 1, n_rec, w_init=current(60.0), b_init=None)
        self.plasticity = brainpy.state.STP(n_rec, U=0.2, tau_f=60.0 * u.ms, tau_d=10.0 * u.ms)
        self.recurrent = braintrace.nn.Linear(n_rec, n_rec, w_init=current(20.0), b_init=None)
        self.neuron = brainpy.state.LIF(n_rec, tau=8.0 * u.ms, V_th=1.0 * u.mV)
        self.readout = braintrace.nn.Linear(n_rec, n_items)

    def update(self, x):
        released = self.plasticity(self.neuron.get_spike())
        self.neuron(self.inward(x) + self.recurrent(released))
        return self.readout(self.neuron.get_spike())


def trials():
    item = brainstate.random.randint(0, n_items, (batch_size,))
    time = jnp.arange(n_steps)[:, None, None]
    shown = jnp.where(time < cue, jax.nn.one_hot(item, n_items), 0.0)
    asked = jnp.broadcast_to(time >= cue + delay, (n_steps, batch_size, 1))
    return jnp.concatenate([shown, asked], axis=-1), item


with brainstate.environ.context(dt=1.0 * u.ms):
    model = FacilitatedNet()
    learner = braintrace.compile(
        model, braintrace.D_RTRL, jnp.zeros((batch_size, n_items + 1)), batch_size=batch_size
    )
    optimizer = braintools.optim.Adam(2e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    mask = (jnp.arange(n_steps) >= cue + delay).astype(float)

    def train(_):
        xs, item = trials()
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)

        def step_loss(x):
            logits = learner(x)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(logits, item)
            return loss.mean(), (logits, model.plasticity.u.value.mean())

        grads, losses, (logits, facilitation) = learner.etrace_grad(
            xs, step_fn=step_loss, mask=mask, has_aux=True, return_value=True
        )
        optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        accuracy = jnp.mean(logits[-probe:].sum(0).argmax(-1) == item)
        return losses[-probe:].mean(), accuracy, facilitation

    losses, accuracies, facilitation = brainstate.transform.for_loop(train, jnp.arange(150))

assert losses[-10:].mean() < 0.6 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
assert accuracies[-10:].mean() > 0.8, accuracies[-10:]
assert facilitation[-1, cue] > facilitation[-1, 0], "spikes facilitate"
