"""A delayed comparison held by the after-currents of GIF neurons with units, each integrated by
`exp_euler_step` under the clock that simulations set (`i` and `t` in the environment). ES-D-RTRL.
"""

import brainpy.state
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(34)
n_rec, batch_size, shown, delay, answer = 24, 16, 3, 5, 3
n_steps = 2 * shown + delay + answer


class GIF(brainpy.state.Neuron):
    """A membrane with a current that a spike leaves behind, and that lasts for a second."""

    def __init__(self, size):
        super().__init__(size, spk_fun=braintools.surrogate.ReluGrad(), spk_reset="soft")
        self.V_th, self.R, self.A2 = 1.0 * u.mV, 1.0 * u.ohm, 0.1 * u.mA
        self.tau = brainstate.random.uniform(5.0, 20.0, self.varshape) * u.ms
        self.tau_I2 = brainstate.random.uniform(50.0, 1000.0, self.varshape) * u.ms

    def init_state(self, batch_size=None, **kwargs):
        zeros = jnp.zeros((batch_size, *self.varshape))
        self.V, self.I2 = brainstate.HiddenState(zeros * u.mV), brainstate.HiddenState(zeros * u.mA)

    def reset_state(self, batch_size=None, **kwargs):
        zeros = jnp.zeros((batch_size, *self.varshape))
        self.V.value, self.I2.value = zeros * u.mV, zeros * u.mA

    def get_spike(self, V=None):
        V = self.V.value if V is None else V
        return self.spk_fun((V - self.V_th) / self.V_th)

    def update(self, x=0.0 * u.mA):
        t = brainstate.environ.get("t")
        last_spike = jax.lax.stop_gradient(self.get_spike())
        last_V = self.V.value - self.V_th * last_spike
        last_I2 = self.I2.value - self.A2 * last_spike
        dI2 = lambda I2, t: -I2 / self.tau_I2
        dV = lambda V, t, current: (-V + self.R * current) / self.tau
        I2 = brainstate.nn.exp_euler_step(dI2, last_I2, t)
        V = brainstate.nn.exp_euler_step(dV, last_V, t, x + I2)
        self.I2.value, self.V.value = I2, V
        return self.get_spike()


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        init = braintools.init.KaimingNormal(scale=100.0, unit=u.mA)
        zero = braintools.init.ZeroInit(unit=u.mA)
        self.neurons = GIF(n_rec)
        self.syn = braintrace.nn.Linear(5 + n_rec, n_rec, w_init=init, b_init=zero)
        self.out = braintrace.nn.Linear(n_rec, 2)

    def update(self, i, x):
        with brainstate.environ.context(i=i, t=i * brainstate.environ.get_dt()):
            spikes = self.neurons.get_spike()
            spikes = self.neurons(self.syn(jnp.concatenate([x, spikes], axis=-1)))
            return self.out(spikes - 5.0 * u.get_mantissa(self.neurons.I2.value))


def trials():
    sample, test = brainstate.random.randint(0, 2, (2, batch_size))
    time = jnp.arange(n_steps)[:, None, None]
    during = lambda start, length: (time >= start) & (time < start + length)
    cue = during(0, shown) * jax.nn.one_hot(sample, 2)
    probe = during(shown + delay, shown) * jax.nn.one_hot(test, 2)
    go = jnp.broadcast_to(during(n_steps - answer, answer), (n_steps, batch_size, 1))
    return jnp.concatenate([cue, probe, go], axis=-1), (sample == test).astype(int)


with brainstate.environ.context(dt=1.0 * u.ms):
    model = Net()
    example = 0, jnp.zeros((batch_size, 5))
    learner = braintrace.compile(
        model, braintrace.ES_D_RTRL, *example, batch_size=batch_size, decay_or_rank=0.95
    )
    optimizer = braintools.optim.Adam(1e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))
    steps = jnp.arange(n_steps)
    mask = (steps >= n_steps - answer).astype(float)

    def train(_):
        xs, match = trials()
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)

        def step_loss(i, x):
            logits = learner(i, x)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(logits, match)
            return loss.mean(), logits

        grads, losses, logits = learner.etrace_grad(
            steps, xs, step_fn=step_loss, mask=mask, has_aux=True, return_value=True
        )
        optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        return losses[-answer:].mean(), jnp.mean(logits[-1].argmax(-1) == match)

    losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(250))

assert losses[-20:].mean() < 0.8 * losses[:20].mean(), (losses[:20].mean(), losses[-20:].mean())
assert accuracies[-20:].mean() > 0.7, accuracies[-20:]
