"""Gradient accumulation: a long sequence comes in four windows, traces and states go on from one to
the next, and one update follows the sum of their gradients.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import close

brainstate.random.seed(19)
n_windows, window, batch_size = 4, 6, 8


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.LSTMCell(2, 12)
        self.out = braintrace.nn.Linear(12, 1)

    def update(self, x):
        return self.out(self.rnn(x))


model = Net()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 2)), batch_size=batch_size
)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)


def streams():
    """The running mean of what was gated in by the second channel."""
    value = brainstate.random.randn(n_windows * window, batch_size, 1)
    gate = brainstate.random.bernoulli(0.4, size=value.shape).astype(float)
    target = jnp.cumsum(value * gate, axis=0) / (1 + jnp.cumsum(gate, axis=0))
    return jnp.concatenate([value, gate], axis=-1), target


def step_loss(x, y):
    return jnp.mean((learner(x) - y) ** 2)


def start():
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)


def accumulated(xs, ys):
    start()
    in_windows = lambda a: a.reshape(n_windows, window, *a.shape[1:])

    def add(total, slices):
        grads, losses = learner.etrace_grad(
            *slices, step_fn=step_loss, reduction="sum", return_value=True
        )
        return jax.tree.map(jnp.add, total, grads), losses.mean()

    zeros = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    return brainstate.transform.scan(add, zeros, (in_windows(xs), in_windows(ys)))


xs, ys = streams()
in_pieces, _ = brainstate.transform.jit(accumulated)(xs, ys)
start()
at_once = learner.etrace_grad(xs, ys, step_fn=step_loss, reduction="sum")
assert close(in_pieces, at_once), "the windows are one sequence"


def train(_):
    grads, losses = accumulated(*streams())
    grads = jax.tree.map(lambda g: g / (n_windows * window), grads)
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(100))
assert losses[-10:].mean() < 0.5 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
