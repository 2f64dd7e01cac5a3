"""A reservoir of fixed random weights, which are no parameters, under a leaky readout that is
trained: its gradient is exact, and nothing else has one.
"""

import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(12)
n_rec, n_steps = 40, 80


class Reservoir(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        w = brainstate.random.randn(n_rec, n_rec)
        self.w_rec = 0.9 * w / jnp.abs(jnp.linalg.eigvals(w)).max()
        self.w_in = brainstate.random.uniform(-0.5, 0.5, (1, n_rec))
        self.readout = braintrace.nn.LeakyRateReadout(n_rec, 1, tau=2.0 * u.ms)

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.h.value = jnp.zeros((batch_size, n_rec))

    def update(self, x):
        drive = braintrace.matmul(x, self.w_in) + braintrace.matmul(self.h.value, self.w_rec)
        self.h.value = 0.5 * self.h.value + 0.5 * jnp.tanh(drive)
        return self.readout(self.h.value)


with brainstate.environ.context(dt=1.0 * u.ms):
    model = Reservoir()
    xs = brainstate.random.uniform(-1, 1, (n_steps, 1, 1))
    ys = jnp.roll(xs, 3, axis=0)
    learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=1)
    weights = model.states(brainstate.ParamState)
    assert set(weights) == {("readout", "W")}
    expected = bptt(model, lambda x, y: jnp.sum((model(x) - y) ** 2), xs, ys)
    found = learner.etrace_grad(
        xs,
        ys,
        step_fn=lambda x, y: jnp.sum((learner(x) - y) ** 2),
        reduction="sum",
        chunk_size=3,
        return_state=False,
    )
    assert close(found, expected)

    optimizer = braintools.optim.Adam(3e-2)
    optimizer.register_trainable_weights(weights)
    mask = (jnp.arange(n_steps) >= 10).astype(float)

    def train(_):
        brainstate.nn.reset_all_states(model, batch_size=1)
        learner.reset_state(batch_size=1)
        grads, losses = learner.etrace_grad(
            xs,
            ys,
            step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2),
            mask=mask,
            return_value=True,
        )
        optimizer.update(grads)
        return losses[10:].mean()

    losses = brainstate.transform.for_loop(train, jnp.arange(300))

assert all(jnp.isfinite(v).all() for v in jax.tree.leaves(found))
assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])
