"""The quickstart page: a MiniGRU, one gradient a step, summed in a scan, an SGD update for each
pass over the sequence.
"""

import warnings

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(7)


class SequenceModel(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.MiniGRU(in_size=1, out_size=6)
        self.readout = braintrace.nn.Linear(6, 1)

    def update(self, x):
        return self.readout(self.rnn(x))


model = SequenceModel()
inputs = jnp.linspace(-1.0, 1.0, 12).reshape(12, 1, 1)
targets = 0.7 * inputs + 0.2

with warnings.catch_warnings():
    warnings.filterwarnings(
        "ignore", message=r"ETP primitive etp_mm.*has no connected hidden states.*"
    )
    learner = braintrace.compile(model, braintrace.D_RTRL, inputs[0], batch_size=1)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.SGD(lr=0.08)
optimizer.register_trainable_weights(weights)


def reset_sequence():
    brainstate.nn.reset_all_states(model, batch_size=1)
    learner.reset_state(batch_size=1)


def evaluate():
    reset_sequence()
    predictions = brainstate.transform.for_loop(learner, inputs)
    return jnp.mean((predictions - targets) ** 2)


def local_loss(x, target):
    prediction = learner(x)
    return jnp.mean((prediction - target) ** 2)


def train_epoch(_):
    reset_sequence()

    def scan_step(accumulated_grads, sample):
        x, target = sample
        grad_fn = brainstate.transform.grad(local_loss, weights, return_value=True)
        step_grads, step_loss = grad_fn(x, target)
        accumulated_grads = jax.tree.map(
            lambda total, current: total + current, accumulated_grads, step_grads
        )
        return accumulated_grads, step_loss

    zero_grads = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    grads, step_losses = brainstate.transform.scan(scan_step, zero_grads, (inputs, targets))
    grads = jax.tree.map(lambda grad: grad / inputs.shape[0], grads)
    optimizer.update(grads)
    return step_losses.mean()


initial_loss = evaluate()
training_losses = brainstate.transform.for_loop(train_epoch, jnp.arange(25))
final_loss = evaluate()

assert bool(jnp.all(jnp.isfinite(training_losses)))
assert final_loss < 0.5 * initial_loss, (initial_loss, final_loss)
