"""Training and evaluation by turns in one compiled program: epochs in `for_loop`, the test set in
`scan` with `etrace_evolve`, and a confusion matrix of a three-way frequency discrimination.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(21)
n_steps, batch_size, n_classes = 16, 12, 3


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.MGUCell(1, 16)
        self.out = braintrace.nn.Linear(16, n_classes)

    def update(self, x):
        return self.out(self.rnn(x))


def batch():
    labels = brainstate.random.randint(0, n_classes, (batch_size,))
    phase = brainstate.random.uniform(0, 2 * jnp.pi, (batch_size,))
    angle = (0.4 + 0.6 * labels) * jnp.arange(n_steps)[:, None] + phase
    noise = 0.2 * brainstate.random.randn(n_steps, batch_size)
    return (jnp.sin(angle) + noise)[..., None], labels


model = Net()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 1)), batch_size=batch_size
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
mask = (jnp.arange(n_steps) >= n_steps // 2).astype(float)
test_set = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[batch() for _ in range(3)])


def start():
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)


def train(_):
    xs, labels = batch()
    start()
    cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels
    grads, loss = learner.etrace_grad(
        xs,
        step_fn=lambda x: cross_entropy(learner(x), labels).mean(),
        mask=mask,
        loss_output="scalar",
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return loss


def evaluate(confusion, examples):
    xs, labels = examples
    start()
    logits = learner.etrace_evolve(xs, return_outputs=True)
    predicted = logits[n_steps // 2 :].sum(0).argmax(-1)
    return confusion.at[labels, predicted].add(1), jnp.mean(predicted == labels)


def epoch(_):
    losses = brainstate.transform.for_loop(train, jnp.arange(15))
    nothing = jnp.zeros((n_classes, n_classes), int)
    confusion, accuracies = brainstate.transform.scan(evaluate, nothing, test_set)
    return losses.mean(), accuracies.mean(), confusion


losses, accuracies, confusion = brainstate.transform.for_loop(epoch, jnp.arange(8))
assert losses[-1] < 0.5 * losses[0], losses
assert accuracies[-1] > 0.8 and accuracies[-1] > accuracies[0], accuracies
assert jnp.all(confusion.sum((1, 2)) == 3 * batch_size)
assert jnp.trace(confusion[-1]) == round(float(accuracies[-1]) * 3 * batch_size)
