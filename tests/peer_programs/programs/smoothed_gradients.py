"""`GradExpon`: single-step gradients smoothed by a leaky sum before each update."""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(5)


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.ValinaRNNCell(1, 10, activation="tanh")
        self.out = braintrace.nn.Linear(10, 1)

    def update(self, x):
        return x >> self.rnn >> self.out


model = Net()
xs = jnp.sin(0.3 * jnp.arange(200))[:, None, None]
ys = jnp.roll(xs, -2, axis=0)
learner = braintrace.compile(model, braintrace.pp_prop, xs[0], batch_size=1, decay_or_rank=9)
weights = model.states(brainstate.ParamState)
smooth = braintrace.GradExpon(weights.to_dict_values(), 0.8)
optimizer = braintools.optim.SGD(lr=0.01)
optimizer.register_trainable_weights(weights)


def step(x, y):
    grads, loss = brainstate.transform.grad(
        lambda: jnp.mean((learner(x) - y) ** 2), weights, return_value=True
    )()
    smooth.update(grads)
    optimizer.update(smooth.gradients.value)
    return loss


losses = brainstate.transform.for_loop(step, xs, ys)
assert losses[-40:].mean() < 0.5 * losses[:40].mean(), (losses[:40].mean(), losses[-40:].mean())
assert jax.tree.structure(smooth.gradients.value) == jax.tree.structure(weights.to_dict_values())
