"""Refractory LIF neurons, which read the time of the simulation from the environment, learn target
rates of their own; the step takes its number and sets the clock of its neurons. pp_prop.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax.numpy as jnp

import braintrace

brainstate.random.seed(35)
n_in, n_rec, n_steps, batch_size = 10, 8, 30, 4


class RefractoryNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        init = braintools.init.KaimingNormal(scale=200.0, unit=u.mA)
        self.weight = braintrace.nn.Linear(
            n_in, n_rec, w_init=init, b_init=braintools.init.ZeroInit(unit=u.mA)
        )
        self.neuron = brainpy.state.LIFRef(
            n_rec, tau=10.0 * u.ms, tau_ref=3.0 * u.ms, V_th=1.0 * u.mV, spk_reset="hard"
        )

    def init_state(self, batch_size=None, **kwargs):
        self.rate = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.rate.value = jnp.zeros((batch_size, n_rec))

    def update(self, i, spikes):
        with brainstate.environ.context(i=i, t=i * brainstate.environ.get_dt()):
            self.neuron(self.weight(spikes))
        self.rate.value = 0.9 * self.rate.value + 0.1 * self.neuron.get_spike()
        return self.rate.value


with brainstate.environ.context(dt=1.0 * u.ms):
    model = RefractoryNet()
    xs = brainstate.random.bernoulli(0.3, size=(n_steps, batch_size, n_in)).astype(float)
    wanted = jnp.linspace(0.02, 0.2, n_rec)
    learner = braintrace.compile(
        model, braintrace.pp_prop, 0, xs[0], batch_size=batch_size, decay_or_rank=0.9
    )
    optimizer = braintools.optim.Adam(2e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    steps = jnp.arange(n_steps)
    late = (steps >= 15).astype(float)

    def step_loss(i, x):
        rate = learner(i, x)
        return jnp.mean((rate - wanted) ** 2), model.neuron.get_spike()

    def train(_):
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)
        grads, losses, spikes = learner.etrace_grad(
            steps, xs, step_fn=step_loss, mask=late, has_aux=True, return_value=True
        )
        optimizer.update(grads)
        return losses[15:].mean(), spikes

    losses, spikes = brainstate.transform.for_loop(train, jnp.arange(60))

assert losses[-5:].mean() < 0.5 * losses[:5].mean(), (losses[:5].mean(), losses[-5:].mean())
last = (spikes[-1] > 0).astype(int)
assert last.sum() > 0 and (last[1:] * last[:-1]).sum() == 0, "no neuron fires twice in a row"
