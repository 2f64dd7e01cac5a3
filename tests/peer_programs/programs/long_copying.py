"""Copying over a long delay with linear recurrent units, whose recurrence is diagonal: there D-RTRL
is the gradient, however long it is.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(4)
n_symbols, n_copy, delay, batch_size = 2, 2, 24, 8
length = 2 * n_copy + delay


def sample_batch():
    symbols = brainstate.random.randint(0, n_symbols, (n_copy, batch_size))
    tokens = jnp.full((length, batch_size), n_symbols)
    tokens = tokens.at[:n_copy].set(symbols).at[n_copy + delay :].set(n_symbols + 1)
    return jax.nn.one_hot(tokens, n_symbols + 2), symbols


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.LRUCell(n_symbols + 2, 24, r_min=0.9, r_max=0.999)
        self.out = braintrace.nn.Linear(n_symbols + 2, n_symbols)

    def update(self, x):
        return self.out(self.rnn(x))


model = Net()
xs, symbols = sample_batch()
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=batch_size)
weights = model.states(brainstate.ParamState)
cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels
targets = jnp.zeros((length, batch_size), int).at[-n_copy:].set(symbols)
recall = jnp.arange(length) >= length - n_copy

expected = bptt(
    model,
    lambda x, y, on: jnp.where(on, cross_entropy(model(x), y).mean(), 0.0),
    xs,
    targets,
    recall,
)
grads = learner.etrace_grad(
    xs,
    targets,
    step_fn=lambda x, y: cross_entropy(learner(x), y).mean(),
    mask=recall.astype(float),
    reduction="sum",
    chunk_size=5,
)
assert close(grads, expected), "over 28 steps in windows of 5"

optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)


def train(_):
    xs, symbols = sample_batch()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    learner.etrace_evolve(xs[:-n_copy], return_outputs=False)
    grads, losses = learner.etrace_grad(
        xs[-n_copy:],
        symbols,
        step_fn=lambda x, y: cross_entropy(learner(x), y).mean(),
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(80))
assert losses[-10:].mean() < 0.85 * jnp.log(n_symbols), losses[-10:].mean()
