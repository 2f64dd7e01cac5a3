"""Heterogeneous time constants: every LIF neuron and every synapse learns its own, from one value
for all; the task has a fast and a slow target. The gradient of all of it is checked.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(27)
n_in, n_rec, n_steps, batch_size = 4, 20, 30, 4


def logit(p):
    return jnp.log(p / (1 - p))


class Layer(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = braintrace.nn.Linear(n_in, n_rec)
        self.membrane = brainstate.ParamState(jnp.full(n_rec, logit(0.8)))
        self.synapse = brainstate.ParamState(jnp.full(n_rec, logit(0.6)))
        self.spike = braintools.surrogate.Sigmoid(alpha=2.0)

    def init_state(self, batch_size=None, **kwargs):
        self.i = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))
        self.v = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.i.value = self.v.value = jnp.zeros((batch_size, n_rec))

    def decays(self):
        decay = lambda p: braintrace.element_wise(p.value, weight_fn=jax.nn.sigmoid)
        return decay(self.membrane), decay(self.synapse)

    def update(self, x):
        alpha, beta = self.decays()
        self.i.value = beta * self.i.value + self.weight(x)
        z = self.spike(self.v.value - 1.0)
        self.v.value = alpha * self.v.value + (1 - alpha) * 2.0 * self.i.value - z
        return self.v.value


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.out = Layer(), braintrace.nn.Linear(n_rec, 2)

    def update(self, x):
        return self.out(self.layer(x))


def filtered(xs, decay):
    def step(h, x):
        h = decay * h + (1 - decay) * x
        return h, h

    return brainstate.transform.scan(step, jnp.zeros(xs.shape[1:]), xs)[1]


xs = brainstate.random.randn(n_steps, batch_size, n_in)
ys = jnp.stack([filtered(xs[..., 0], 0.3), 3 * filtered(xs[..., 1], 0.95)], axis=-1)
model = Net()
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=batch_size)
weights = model.states(brainstate.ParamState)
misfit = lambda out, y: jnp.mean((out - y) ** 2)
expected = bptt(model, lambda x, y: misfit(model(x), y), xs, ys)
grads = learner.etrace_grad(
    xs, ys, step_fn=lambda x, y: misfit(learner(x), y), reduction="sum", chunk_size=1
)
assert close(grads, expected), "two states a neuron, both with a decay that is learned"

optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(weights)


def train(_):
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    grads, losses = learner.etrace_grad(
        xs, ys, step_fn=lambda x, y: misfit(learner(x), y), return_value=True
    )
    optimizer.update(grads)
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(100))
spread = [float(jax.nn.sigmoid(p.value).std()) for p in (model.layer.membrane, model.layer.synapse)]
assert losses[-1] < 0.3 * losses[0], (losses[0], losses[-1])
assert min(spread) > 0.02, "time constants became different"
