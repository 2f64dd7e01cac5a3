"""A curriculum of sequence lengths: a gated network counts pulses modulo two on short sequences,
then on longer ones, with the same learner; traces do not grow with the length.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(17)
n_rec, batch_size = 12, 12


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(1, n_rec)
        self.out = braintrace.nn.Linear(n_rec, 1)

    def update(self, x):
        return self.out(self.rnn(x))


model = Net()
learner = braintrace.compile(
    model, braintrace.OSTLRecurrent, jnp.zeros((batch_size, 1)), batch_size=batch_size
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def parities(length):
    pulses = brainstate.random.bernoulli(0.5, size=(length, batch_size, 1)).astype(float)
    return pulses, jnp.cumsum(pulses, axis=0) % 2


def step_loss(x, y):
    logit = learner(x)
    loss = braintools.metric.sigmoid_binary_cross_entropy(logit, y).mean()
    return loss, jnp.mean((logit > 0) == y)


def run(length, n_updates):
    def train(_):
        xs, ys = parities(length)
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)
        grads, losses, right = learner.etrace_grad(
            xs, ys, step_fn=step_loss, has_aux=True, return_value=True
        )
        optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        return losses.mean(), right.mean()

    return brainstate.transform.for_loop(train, jnp.arange(n_updates))


untrained = run(10, 1)[0][0]
for length in (3, 10):
    losses, accuracies = run(length, 120)
assert losses[-10:].mean() < 0.5 * untrained, (untrained, losses[-10:].mean())
assert accuracies[-10:].mean() > 0.9, accuracies[-10:]
