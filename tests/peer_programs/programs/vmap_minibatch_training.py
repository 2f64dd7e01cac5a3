"""A model written for one sample, with noise of its own in each, mapped over minibatches; the
learner is compiled inside the jitted step of training, as the batching page has it.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(17)
n_in, n_rec, batch_size, n_steps = 3, 16, 8, 10


class NoisyCell(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = braintrace.nn.Linear(n_in + n_rec, n_rec)
        self.out = braintrace.nn.Linear(n_rec, 1)

    def init_state(self, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros(n_rec))  # of one sample

    def update(self, x):
        noise = 0.02 * brainstate.random.randn(n_rec)
        drive = self.w(jnp.concatenate([x, self.h.value]))
        self.h.value = 0.7 * self.h.value + 0.3 * jnp.tanh(drive) + noise
        return self.out(self.h.value)


model = NoisyCell()
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(weights)


@brainstate.transform.jit
def train_step(xs, ys):
    learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=batch_size, vmap=True)

    def step(total, slices):
        x, y = slices
        grad_of = brainstate.transform.grad(
            lambda: jnp.mean((learner(x) - y) ** 2), weights, return_value=True
        )
        grads, loss = grad_of()
        return jax.tree.map(jnp.add, total, grads), loss

    zeros = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    grads, losses = brainstate.transform.scan(step, zeros, (xs, ys))
    optimizer.update(grads)
    return losses.mean()


losses = []
for _ in range(60):
    xs = brainstate.random.randn(n_steps, batch_size, n_in)
    ys = jnp.cumsum(xs[..., :1], axis=0) * 0.3
    losses.append(float(train_step(xs, ys)))
early, late = sum(losses[:5]) / 5, sum(losses[-5:]) / 5
assert late < 0.5 * early, (early, late)
