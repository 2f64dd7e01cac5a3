"""The adding task: two marked numbers of a long stream, their sum at its end. A GRU by D-RTRL with
a mask that counts the last step alone.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(2)
batch_size, n_steps = 32, 12


def sample_batch():
    values = brainstate.random.uniform(0, 1, (n_steps, batch_size))
    half, step = n_steps // 2, jnp.arange(n_steps)[:, None]
    first = brainstate.random.randint(0, half, (batch_size,))
    second = brainstate.random.randint(half, n_steps, (batch_size,))
    marks = ((step == first) | (step == second)).astype(float)
    return jnp.stack([values, marks], -1), (values * marks).sum(0)[:, None]


class GRUNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = braintrace.nn.GRUCell(2, 24), braintrace.nn.Linear(24, 1)

    def update(self, x):
        return self.out(self.rnn(x))


model = GRUNet()
learner = braintrace.compile(model, braintrace.D_RTRL, sample_batch()[0][0], batch_size=batch_size)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
mask = (jnp.arange(n_steps) == n_steps - 1).astype(float)


def train(_):
    xs, total = sample_batch()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    grads, loss = learner.etrace_grad(
        xs,
        step_fn=lambda x: jnp.mean((learner(x) - total) ** 2),
        mask=mask,
        loss_output="scalar",
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return loss


losses = brainstate.transform.for_loop(train, jnp.arange(300))
of_the_mean = 2 / 12  # the variance of the sum of two numbers of [0, 1]
assert losses[-20:].mean() < 0.5 * of_the_mean, losses[-20:].mean()
