"""Whole-brain fitting: Wilson-Cowan nodes on a sparse connectome (CSR), whose synaptic weights are
fitted, with their gradient online, until functional connectivity is that of a recording.
"""

import brainevent
import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np

import braintrace

brainstate.random.seed(6)
rng = np.random.default_rng(6)
n, dt, n_steps = 10, 0.3, 120
links = (rng.random((n, n)) < 0.3) & ~np.eye(n, dtype=bool)
connectome = brainevent.CSR.fromdense(
    jnp.asarray(np.where(links, rng.uniform(0.5, 3.0, (n, n)), 0))
)


class WilsonCowan(brainstate.nn.Module):
    def __init__(self, values):
        super().__init__()
        self.weight = brainstate.ParamState(values)

    def init_state(self, **kwargs):
        self.e = brainstate.HiddenState(jnp.full(n, 0.2))
        self.i = brainstate.HiddenState(jnp.full(n, 0.2))

    def reset_state(self, **kwargs):
        self.e.value, self.i.value = jnp.full(n, 0.2), jnp.full(n, 0.2)

    def update(self, noise):
        e, i = self.e.value, self.i.value
        coupled = braintrace.sparse_matmul(e, self.weight.value, sparse_mat=connectome)
        drive = 6.0 * e - 5.0 * i + coupled - 2.0 + noise
        self.e.value = e + dt * (-e + jax.nn.sigmoid(drive))
        self.i.value = i + dt * (-i + jax.nn.sigmoid(5.0 * e - 1.5))
        return self.e.value


def connectivity(activity):
    return jnp.corrcoef(activity[20:].T)


recorded_noise = brainstate.random.randn(n_steps, n)
truth = WilsonCowan(connectome.data)
brainstate.nn.init_all_states(truth)
recording = brainstate.transform.for_loop(truth, recorded_noise)
mean, deviation = recording.mean(0), recording.std(0)

model = WilsonCowan(jnp.full_like(connectome.data, 1.0))
learner = braintrace.compile(model, braintrace.D_RTRL, recorded_noise[0])
optimizer = braintools.optim.Adam(5e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def co_fluctuation(activity):
    """The edge time series, whose average over time is functional connectivity."""
    z = (activity - mean) / deviation
    return jnp.outer(z, z)


def step_loss(noise, observed):
    activity = learner(noise)
    misfit = jnp.mean((co_fluctuation(activity) - co_fluctuation(observed)) ** 2)
    return misfit, activity


def epoch(_):
    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    grads, losses, activity = learner.etrace_grad(
        recorded_noise, recording, step_fn=step_loss, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    upper = jnp.triu_indices(n, 1)
    fit = jnp.corrcoef(connectivity(activity)[upper], connectivity(recording)[upper])[0, 1]
    return losses.mean(), fit


losses, fits = brainstate.transform.for_loop(epoch, jnp.arange(60))
assert losses[-1] < 0.2 * losses[0], losses
assert fits[-1] > 0.95 and fits[-1] > fits[0], (fits[0], fits[-1])
error = lambda values: jnp.abs(values - truth.weight.value).mean()
assert error(model.weight.value) < 0.8 * error(jnp.ones_like(connectome.data)), (
    "towards the connectome of the recording"
)
