"""A whole-brain model of Stuart-Landau (Hopf) oscillators: bifurcation parameters and a coupling
matrix fitted to the covariance of a target, batched over noise.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(10)
n, dt, batch_size, n_steps = 5, 0.1, 4, 25
group = jnp.array([0, 0, 0, 1, 1])
target = jnp.where(group[:, None] == group, 0.3, -0.1) + 0.2 * jnp.eye(n)


class Hopf(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = brainstate.ParamState(jnp.full(n, -0.2))
        self.g = brainstate.ParamState(0.05 * brainstate.random.randn(n, n))
        self.omega = 2.0 + 0.1 * jnp.arange(n)

    def init_state(self, batch_size=None, **kwargs):
        self.x = brainstate.HiddenState(jnp.full((batch_size, n), 0.3))
        self.y = brainstate.HiddenState(jnp.zeros((batch_size, n)))

    def reset_state(self, batch_size=None, **kwargs):
        self.x.value, self.y.value = jnp.full((batch_size, n), 0.3), jnp.zeros((batch_size, n))

    def update(self, noise):
        x, y, a = self.x.value, self.y.value, braintrace.element_wise(self.a.value)
        radius = x**2 + y**2
        pull = braintrace.matmul(x, self.g.value) - x * self.g.value.sum(0)
        self.x.value = x + dt * ((a - radius) * x - self.omega * y + pull) + noise
        self.y.value = y + dt * ((a - radius) * y + self.omega * x)
        return self.x.value


def misfit(x):
    return jnp.mean((x.T @ x / batch_size - target) ** 2)


model = Hopf()
noise = lambda: 0.1 * brainstate.random.randn(n_steps, batch_size, n)
xs = noise()
learner = braintrace.compile(model, braintrace.OSTLRecurrent, xs[0], batch_size=batch_size)
expected = bptt(model, lambda x: misfit(model(x)), xs)
found = learner.etrace_grad(xs, step_fn=lambda x: misfit(learner(x)), reduction="sum", chunk_size=6)
assert close(found, expected), "two states a region, coupled through all regions"

optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def train(_):
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    grads, losses = learner.etrace_grad(
        noise(), step_fn=lambda x: misfit(learner(x)), return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(120))
assert losses[-10:].mean() < 0.85 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
