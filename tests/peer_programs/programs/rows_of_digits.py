"""Images row by row: drawn digits of eight by eight with noise, an LSTM, the class after the last
row.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(3)
batch_size = 16
zero = "00111100 01000010 10000001 10000001 10000001 10000001 01000010 00111100"
one = "00011000 00111000 00011000 00011000 00011000 00011000 00011000 00111100"
four = "00001100 00010100 00100100 01000100 11111110 00000100 00000100 00000100"
seven = "11111110 00000010 00000100 00001000 00010000 00100000 00100000 00100000"
drawn = (zero, one, four, seven)
digits = jnp.array([[[float(c) for c in row] for row in d.split()] for d in drawn])


class RowLSTM(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = braintrace.nn.LSTMCell(8, 20), braintrace.nn.Linear(20, 4)

    def update(self, row):
        return self.out(self.rnn(row))


model = RowLSTM()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 8)), batch_size=batch_size
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def train(_):
    labels = brainstate.random.randint(0, 4, (batch_size,))
    images = digits[labels] + 0.3 * brainstate.random.randn(batch_size, 8, 8)
    rows = jnp.swapaxes(images, 0, 1)
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(row):
        out = learner(row)
        loss = braintools.metric.softmax_cross_entropy_with_integer_labels(out, labels)
        return loss, out

    last = jnp.zeros((8, batch_size)).at[-1].set(1)
    grads, losses, outs = learner.etrace_grad(
        rows, step_fn=step_loss, mask=last, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[-1].mean(), jnp.mean(outs[-1].argmax(-1) == labels)


losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(80))
assert losses.shape == (80,) and losses[-10:].mean() < 0.5 * losses[:5].mean()
assert accuracies[-10:].mean() > 0.8, accuracies[-10:]
