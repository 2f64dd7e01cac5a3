"""An event-based GRU: units are silent below their threshold, and an event resets its unit. Of
others, the gates read events alone.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(11)


class EventGRU(brainstate.nn.Module):
    def __init__(self, n_in, n_rec):
        super().__init__()
        self.gates = braintrace.nn.Linear(n_in + n_rec, 2 * n_rec)
        self.candidate = braintrace.nn.Linear(n_in + n_rec, n_rec)
        self.threshold = brainstate.ParamState(jnp.full(n_rec, -1.0))
        self.spike = braintools.surrogate.ReluGrad(alpha=0.5, width=1.0)
        self.n_rec = n_rec

    def init_state(self, batch_size=None, **kwargs):
        self.c = brainstate.HiddenState(jnp.zeros((batch_size, self.n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.c.value = jnp.zeros((batch_size, self.n_rec))

    def event(self):
        theta = jax.nn.sigmoid(braintrace.element_wise(self.threshold.value))
        happens = self.spike(self.c.value - theta)
        return happens * self.c.value, happens * theta

    def update(self, x):
        y, reset = self.event()
        gates = jax.nn.sigmoid(self.gates(jnp.concatenate([x, y], -1)))
        update, forget = jnp.split(gates, 2, axis=-1)
        new = jnp.tanh(self.candidate(jnp.concatenate([x, forget * y], -1)))
        self.c.value = (1 - update) * (self.c.value - jax.lax.stop_gradient(reset)) + update * new
        return self.event()[0]


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = EventGRU(3, 24), braintrace.nn.Linear(24, 1)

    def update(self, x):
        return self.out(self.rnn(x))


batch_size, n_steps, lag = 16, 12, 2
model = Net()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 3)), batch_size=batch_size
)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)


def train(_):
    """Say what came two steps ago."""
    xs = brainstate.random.bernoulli(0.5, size=(n_steps, batch_size, 3)).astype(float)
    ys = jnp.roll(xs[..., :1], lag, axis=0)
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    grads, losses = learner.etrace_grad(
        xs,
        ys,
        step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2),
        mask=(jnp.arange(n_steps) >= lag).astype(float),
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[lag:].mean(), (model.rnn.event()[0] == 0).mean()


losses, silent = brainstate.transform.for_loop(train, jnp.arange(150))
assert losses[-10:].mean() < 0.6 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
assert 0.1 < silent[-10:].mean() < 1, "events are sparse"
