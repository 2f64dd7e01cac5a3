"""Stuart-Landau nodes on a sparse connectome: the working point of each region and one coupling are
fitted so that functional connectivity becomes the recorded one, over minibatches of noise.
"""

import brainevent
import brainstate
import braintools
import jax.numpy as jnp
import numpy as np

import braintrace

brainstate.random.seed(33)
rng = np.random.default_rng(33)
n, dt, n_steps, batch_size = 8, 0.2, 20, 64
links = (rng.random((n, n)) < 0.35) & ~np.eye(n, dtype=bool)
dense = np.where(links, rng.uniform(0.3, 1.0, (n, n)), 0.0)
connectome = brainevent.CSR.fromdense(jnp.asarray(dense / dense.sum(0).max()))
strength = jnp.asarray((dense / dense.sum(0).max()).sum(0))
omega = jnp.linspace(0.8, 1.2, n)


class StuartLandau(brainstate.nn.Module):
    def __init__(self, a, log_coupling):
        super().__init__()
        self.a = brainstate.ParamState(a)
        self.log_coupling = brainstate.ParamState(log_coupling)

    def init_state(self, batch_size=None, **kwargs):
        self.x = brainstate.HiddenState(jnp.zeros((batch_size, n)))
        self.y = brainstate.HiddenState(jnp.zeros((batch_size, n)))

    def reset_state(self, batch_size=None, **kwargs):
        self.x.value, self.y.value = jnp.zeros((batch_size, n)), jnp.zeros((batch_size, n))

    def update(self, noise):
        x, y = self.x.value, self.y.value
        a = braintrace.element_wise(self.a.value)
        g = jnp.exp(self.log_coupling.value)
        growth = a - x**2 - y**2
        pull = x @ connectome - strength * x
        self.x.value = x + dt * (growth * x - omega * y + g * pull) + noise
        self.y.value = y + dt * (growth * y + omega * x)
        return self.x.value


def covariance(x):
    """Between regions, over the batch: of this step alone, so that it can be learned online."""
    return x.T @ x / x.shape[0]


def noise():
    return 0.15 * brainstate.random.randn(n_steps, batch_size, n)


truth = StuartLandau(jnp.linspace(-1.0, 0.4, n), jnp.log(jnp.array(1.0)))
brainstate.nn.init_all_states(truth, batch_size=200)
long_noise = 0.15 * brainstate.random.randn(n_steps, 200, n)
observed = brainstate.transform.for_loop(lambda e: covariance(truth(e)), long_noise)

model = StuartLandau(jnp.full(n, -0.3), jnp.log(jnp.array(0.2)))
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, n)), batch_size=batch_size
)
optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def epoch(_):
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    grads, losses = learner.etrace_grad(
        noise(),
        observed,
        step_fn=lambda e, target: 100 * jnp.mean((covariance(learner(e)) - target) ** 2),
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean()


error = lambda: float(jnp.abs(model.a.value - truth.a.value).mean())
before = error()
losses = brainstate.transform.for_loop(epoch, jnp.arange(60))
assert losses[-10:].mean() < 0.8 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
assert error() < 0.8 * before, (before, error())
assert model.log_coupling.value > jnp.log(0.2), "the recording was coupled more strongly"
