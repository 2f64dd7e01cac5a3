"""Coupled phase oscillators fitted to a functional connectivity: frequencies and couplings learn
online, so that the phases of the regions lock as in the target.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(6)
n, dt, n_steps = 6, 0.2, 40
block = jnp.arange(n) // 3
target = jnp.where(block[:, None] == block, 0.9, -0.6) * (1 - jnp.eye(n))


class Kuramoto(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.omega = brainstate.ParamState(1.0 + 0.3 * brainstate.random.randn(n))
        self.k = brainstate.ParamState(0.1 * brainstate.random.randn(n, n))
        self.first = brainstate.random.uniform(-3, 3, (n,))

    def init_state(self, **kwargs):
        self.theta = brainstate.HiddenState(self.first)

    def reset_state(self, **kwargs):
        self.theta.value = self.first

    def update(self, drive):
        theta = self.theta.value
        # sum_j K_ij sin(theta_j - theta_i), as two products
        sines = braintrace.matmul(jnp.sin(theta), self.k.value) * jnp.cos(theta)
        cosines = braintrace.matmul(jnp.cos(theta), self.k.value) * jnp.sin(theta)
        self.theta.value = theta + dt * (self.omega.value + sines - cosines + drive)
        return jnp.cos(self.theta.value[:, None] - self.theta.value)


def misfit(locked):
    return jnp.mean(((locked - target) * (1 - jnp.eye(n))) ** 2)


model = Kuramoto()
noise = 0.02 * brainstate.random.randn(n_steps, n)
learner = braintrace.compile(model, braintrace.OSTLRecurrent, noise[0])
expected = bptt(model, lambda x: misfit(model(x)), noise)
found = learner.etrace_grad(
    noise, step_fn=lambda x: misfit(learner(x)), reduction="sum", chunk_size=9
)
assert close(found, expected), "every region moves every other one, and no path is left out"

optimizer = braintools.optim.Adam(3e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def train(_):
    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    grads, losses = learner.etrace_grad(
        0.02 * brainstate.random.randn(n_steps, n),
        step_fn=lambda x: misfit(learner(x)),
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[-10:].mean()


losses = brainstate.transform.for_loop(train, jnp.arange(100))
assert losses[-5:].mean() < 0.3 * losses[:5].mean(), (losses[:5], losses[-5:])
