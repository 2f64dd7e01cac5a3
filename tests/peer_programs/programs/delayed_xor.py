"""Delayed XOR: two pulses with a gap between them, and their exclusive or at the end. A gated cell
under D-RTRL, and the same weights under backpropagation through time for comparison.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, cosine

brainstate.random.seed(11)
n_rec, n_steps, batch_size = 16, 10, 32


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = braintrace.nn.MGUCell(2, n_rec)
        self.out = braintrace.nn.Linear(n_rec, 2)

    def update(self, x):
        return self.out(self.cell(x))


def trials():
    first, second = brainstate.random.randint(0, 2, (2, batch_size))
    time = jnp.arange(n_steps)[:, None]
    pulse = jnp.where(time == 1, 2.0 * first - 1, 0.0) + jnp.where(time == 5, 2.0 * second - 1, 0.0)
    cue = jnp.broadcast_to((time == n_steps - 1).astype(float), pulse.shape)
    noise = 0.05 * brainstate.random.randn(n_steps, batch_size)
    return jnp.stack([pulse + noise, cue], axis=-1), first ^ second


model = Net()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 2)), batch_size=batch_size
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
last = (jnp.arange(n_steps) == n_steps - 1).astype(float)


def cross_entropy(logits, label):
    return braintools.metric.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def train(_):
    xs, label = trials()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(x):
        logits = learner(x)
        return cross_entropy(logits, label), logits

    grads, losses, logits = learner.etrace_grad(
        xs, step_fn=step_loss, mask=last, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[-1], jnp.mean(logits[-1].argmax(-1) == label)


xs, label = trials()
through_time = bptt(model, lambda x, w: w * cross_entropy(model(x), label), xs, last)
online = learner.etrace_grad(
    xs, step_fn=lambda x: cross_entropy(learner(x), label), mask=last, reduction="sum"
)
assert cosine(online, through_time) > 0.8, "it points the same way"

losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(250))
assert losses[-20:].mean() < 0.4 * losses[:10].mean(), (losses[:10].mean(), losses[-20:].mean())
assert accuracies[-20:].mean() > 0.85, accuracies[-20:]
