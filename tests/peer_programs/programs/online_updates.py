"""Truly online: an update after every step, inside a loop, on a stream that is never stored."""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(2, 12)
        self.out = braintrace.nn.Linear(12, 1)

    def update(self, x):
        return self.out(self.rnn(x))


brainstate.random.seed(3)
time = jnp.arange(800)
stream = jnp.stack([jnp.sin(0.2 * time), jnp.cos(0.2 * time)], -1)[:, None]
following = 2 * jnp.sin(0.2 * (time + 3))[:, None, None]

model = Net()
learner = braintrace.compile(model, braintrace.D_RTRL, stream[0], batch_size=1)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(2e-3)
optimizer.register_trainable_weights(weights)


def online_step(x, y):
    grad_fn = brainstate.transform.grad(
        lambda: jnp.mean((learner(x) - y) ** 2), weights, return_value=True
    )
    grads, loss = grad_fn()
    optimizer.update(grads)
    return loss


losses = brainstate.transform.for_loop(online_step, stream, following)
assert losses[-50:].mean() < 0.2 * losses[:25].mean(), (losses[:50].mean(), losses[-50:].mean())
assert learner.running_index.value == 800
