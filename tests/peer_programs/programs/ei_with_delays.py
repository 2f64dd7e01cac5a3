"""Excitatory and inhibitory rate units: the sign of a weight is its sender's, and what is sent
arrives some steps later, from a buffer that is a hidden state.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(9)
n_exc, n_inh, delay, n_in = 6, 2, 3, 2
n = n_exc + n_inh


class DelayedEI(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        signs = jnp.broadcast_to(jnp.where(jnp.arange(n) < n_exc, 1.0, -1.0)[:, None], (n, n))
        self.inp = braintrace.nn.Linear(n_in, n)
        self.rec = braintrace.nn.SignedWLinear(n, n, w_sign=signs)
        self.out = braintrace.nn.Linear(n, 1)

    def init_state(self, **kwargs):
        self.r = brainstate.HiddenState(jnp.zeros(n))
        self.sent = brainstate.HiddenState(jnp.zeros((delay, n)))

    def reset_state(self, **kwargs):
        self.r.value, self.sent.value = jnp.zeros(n), jnp.zeros((delay, n))

    def update(self, x):
        arriving, sent = self.sent.value[0], self.sent.value[1:]
        drive = self.inp(x) + 0.3 * self.rec(arriving)
        self.r.value = 0.8 * self.r.value + 0.2 * jax.nn.softplus(drive)
        self.sent.value = jnp.concatenate([sent, self.r.value[None]])
        return self.out(self.r.value)


model = DelayedEI()
time = jnp.arange(24)
xs = jnp.stack([jnp.sin(0.5 * time), jnp.cos(0.3 * time)], -1)
ys = jnp.sin(0.5 * (time - 2))[:, None]
exact = braintrace.compile(model, braintrace.OSTLRecurrent, xs[0])
expected = bptt(model, lambda x, y: jnp.sum((model(x) - y) ** 2), xs, ys)
found = exact.etrace_grad(
    xs, ys, step_fn=lambda x, y: jnp.sum((exact(x) - y) ** 2), reduction="sum", chunk_size=5
)
assert close(found, expected), "the delayed recurrence is inside the layer"

learner = braintrace.compile(model, braintrace.D_RTRL, xs[0])
optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def train(_):
    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    grads, losses = learner.etrace_grad(
        xs, ys, step_fn=lambda x, y: jnp.sum((learner(x) - y) ** 2), return_value=True
    )
    optimizer.update(grads)
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(150))
assert losses[-1] < 0.3 * losses[0], (losses[0], losses[-1])
