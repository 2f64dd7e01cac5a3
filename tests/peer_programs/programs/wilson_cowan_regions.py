"""Wilson-Cowan regions along a fixed structural connectivity: gains and thresholds of each region
are fitted to a target activity, with an update after every step of a stream.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(7)
n, dt = 8, 0.2
structure = brainstate.random.uniform(0, 1, (n, n)) * (1 - jnp.eye(n)) / n


class WilsonCowan(brainstate.nn.Module):
    def __init__(self, gain, threshold, strength):
        super().__init__()
        self.gain = brainstate.ParamState(gain)
        self.threshold = brainstate.ParamState(threshold)
        self.strength = brainstate.ParamState(strength)

    def init_state(self, **kwargs):
        self.e = brainstate.HiddenState(jnp.full(n, 0.1))
        self.i = brainstate.HiddenState(jnp.full(n, 0.1))

    def reset_state(self, **kwargs):
        self.e.value = self.i.value = jnp.full(n, 0.1)

    def update(self, drive):
        e, i = self.e.value, self.i.value
        gain = braintrace.element_wise(self.gain.value, weight_fn=jax.nn.softplus)
        coupled = self.strength.value * (e @ structure)
        into_e = gain * (6 * e - 5 * i + coupled + drive - self.threshold.value)
        into_i = 4 * e - i - 1.0
        self.e.value = e + dt * (-e + jax.nn.sigmoid(into_e))
        self.i.value = i + dt * (-i + jax.nn.sigmoid(into_i))
        return self.e.value


drives = 1.0 + 0.5 * jnp.sin(0.1 * jnp.arange(600)[:, None] + jnp.arange(n))
truth = WilsonCowan(jnp.linspace(0.0, 1.0, n), jnp.linspace(1.0, 2.0, n), jnp.array(2.0))
brainstate.nn.init_all_states(truth)
recorded = brainstate.transform.for_loop(truth, drives)

model = WilsonCowan(jnp.zeros(n), jnp.ones(n), jnp.array(1.0))
learner = braintrace.compile(model, braintrace.D_RTRL, drives[0])
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)


def online(drive, target):
    loss_of = lambda: jnp.mean((learner(drive) - target) ** 2)
    grads, loss = brainstate.transform.grad(loss_of, weights, return_value=True)()
    optimizer.update(grads)
    return loss


before = jnp.abs(model.threshold.value - truth.threshold.value).mean()
losses = brainstate.transform.for_loop(online, drives, recorded)
after = jnp.abs(model.threshold.value - truth.threshold.value).mean()
assert losses[-100:].mean() < 0.2 * losses[:100].mean(), (losses[:100].mean(), losses[-100:].mean())
assert after < before, "towards the parameters that made the recording"
