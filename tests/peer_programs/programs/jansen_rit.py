"""Jansen-Rit columns: six states each, whose gains are fitted to a recorded potential. Columns do
not meet, so D-RTRL is the gradient.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

n, dt, n_steps = 3, 0.02, 60
a, b, c = 10.0, 5.0, 13.5


def firing(v):
    return 0.5 / (1 + jnp.exp(0.56 * (6 - v)))


class JansenRit(brainstate.nn.Module):
    def __init__(self, excitation, inhibition):
        super().__init__()
        self.excitation = brainstate.ParamState(excitation)
        self.inhibition = brainstate.ParamState(inhibition)

    def init_state(self, **kwargs):
        for name in ("y0", "y1", "y2", "y3", "y4", "y5"):
            setattr(self, name, brainstate.HiddenState(jnp.zeros(n)))

    def reset_state(self, **kwargs):
        for name in ("y0", "y1", "y2", "y3", "y4", "y5"):
            getattr(self, name).value = jnp.zeros(n)

    def update(self, drive):
        y0, y1, y2 = self.y0.value, self.y1.value, self.y2.value
        gain_e = braintrace.element_wise(self.excitation.value)
        gain_i = braintrace.element_wise(self.inhibition.value)
        pyramidal = firing(y1 - y2)
        excited = drive + 0.8 * c * firing(c * y0)
        inhibited = 0.25 * c * firing(0.25 * c * y0)
        accelerate = lambda gain, rate, source, v, y: (
            v + dt * (gain * rate * source - 2 * rate * v - rate**2 * y)
        )
        self.y3.value = accelerate(gain_e, a, pyramidal, self.y3.value, y0)
        self.y4.value = accelerate(gain_e, a, excited, self.y4.value, y1)
        self.y5.value = accelerate(gain_i, b, inhibited, self.y5.value, y2)
        self.y0.value = y0 + dt * self.y3.value
        self.y1.value = y1 + dt * self.y4.value
        self.y2.value = y2 + dt * self.y5.value
        return self.y1.value - self.y2.value


drives = 12.0 + 3.0 * jnp.sin(0.3 * jnp.arange(n_steps)[:, None] + jnp.arange(n))
truth = JansenRit(jnp.array([3.0, 3.5, 4.0]), jnp.array([20.0, 22.0, 24.0]))
brainstate.nn.init_all_states(truth)
recorded = brainstate.transform.for_loop(truth, drives)

model = JansenRit(jnp.full(n, 3.0), jnp.full(n, 18.0))
learner = braintrace.compile(model, braintrace.D_RTRL, drives[0])
assert [g.num_state for g in learner.graph.hidden_groups] == [6]
expected = bptt(model, lambda x, y: jnp.sum((model(x) - y) ** 2), drives, recorded)
found = learner.etrace_grad(
    drives,
    recorded,
    step_fn=lambda x, y: jnp.sum((learner(x) - y) ** 2),
    reduction="sum",
    chunk_size=7,
)
assert close(found, expected, 1e-7)

optimizer = braintools.optim.Adam(0.1)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def train(_):
    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    grads, losses = learner.etrace_grad(
        drives, recorded, step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2), return_value=True
    )
    optimizer.update(grads)
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(100))
assert losses[-1] < 0.1 * losses[0], (losses[0], losses[-1])
