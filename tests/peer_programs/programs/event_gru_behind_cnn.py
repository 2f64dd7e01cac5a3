"""An event-based GRU behind a small CNN, on frames like those of an event camera: a bar moves in
one of four directions, and the network says which. ES-D-RTRL.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(3)
size, n_units, n_steps, batch_size, n_classes = 8, 24, 8, 12, 4


class EventGRU(brainstate.nn.Module):
    """Units are silent below their threshold; the gates read events and the input."""

    def __init__(self, n_in, n_units):
        super().__init__()
        self.gates = braintrace.nn.Linear(n_in + n_units, 2 * n_units)
        self.candidate = braintrace.nn.Linear(n_in + n_units, n_units)
        self.threshold = brainstate.ParamState(jnp.full(n_units, 0.15))
        self.spike = braintools.surrogate.ReluGrad(alpha=0.5, width=1.0)
        self.n_units = n_units

    def init_state(self, batch_size=None, **kwargs):
        self.c = brainstate.HiddenState(jnp.zeros((batch_size, self.n_units)))

    def reset_state(self, batch_size=None, **kwargs):
        self.c.value = jnp.zeros((batch_size, self.n_units))

    def events(self):
        c, threshold = self.c.value, braintrace.element_wise(self.threshold.value)
        happens = self.spike(c - threshold)
        return happens * c, happens * threshold

    def update(self, x):
        y, reset = self.events()
        z = jax.nn.sigmoid(self.gates(jnp.concatenate([x, y], axis=-1)))
        update, relevance = jnp.split(z, 2, axis=-1)
        candidate = jnp.tanh(self.candidate(jnp.concatenate([x, relevance * y], axis=-1)))
        c = self.c.value - jax.lax.stop_gradient(reset)
        self.c.value = (1 - update) * c + update * candidate
        return self.events()[0]


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = braintrace.nn.Conv2d((size, size, 2), 4, kernel_size=3)
        self.pool = brainstate.nn.MaxPool2d(2, 2, channel_axis=-1)
        self.rnn = EventGRU(4 * (size // 2) ** 2, n_units)
        self.out = braintrace.nn.Linear(n_units, n_classes)

    def update(self, frame):
        features = self.pool(jax.nn.relu(self.conv(frame)))
        return self.out(self.rnn(features.reshape(frame.shape[0], -1)))


def film(directions):
    """ON events where the bar arrives, OFF events where it was, and noise."""
    offset = brainstate.random.randint(0, size, directions.shape)
    sign = jnp.where(directions % 2 == 0, 1, -1)
    position = (offset + sign * jnp.arange(n_steps)[:, None]) % size
    bar = lambda where: jax.nn.one_hot(where % size, size)
    columns = jnp.stack([bar(position), bar(position - sign)], axis=-1)  # (time, batch, size, 2)
    across = jnp.broadcast_to(columns[:, :, None], (*position.shape, size, size, 2))
    vertical = (directions >= 2)[:, None, None, None]
    frames = jnp.where(vertical, across.swapaxes(2, 3), across)
    noise = brainstate.random.bernoulli(0.03, size=frames.shape)
    return jnp.clip(frames + noise, 0, 1)


model = Net()
example = jnp.zeros((batch_size, size, size, 2))
learner = braintrace.compile(
    model, braintrace.ES_D_RTRL, example, batch_size=batch_size, decay_or_rank=0.8
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
late = (jnp.arange(n_steps) >= 2).astype(float)


def train(_):
    directions = brainstate.random.randint(0, n_classes, (batch_size,))
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(frame):
        logits = learner(frame)
        loss = braintools.metric.softmax_cross_entropy_with_integer_labels(logits, directions)
        return loss.mean(), (logits, jnp.mean(model.rnn.events()[0] == 0))

    grads, losses, (logits, silent) = learner.etrace_grad(
        film(directions), step_fn=step_loss, mask=late, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    correct = jnp.mean(logits[2:].sum(0).argmax(-1) == directions)
    return losses[2:].mean(), correct, silent.mean()


losses, accuracies, silent = brainstate.transform.for_loop(train, jnp.arange(120))
assert losses[-10:].mean() < 0.6 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
assert accuracies[-10:].mean() > 0.7, accuracies[-10:]
assert silent[-10:].mean() > 0.2, "most steps of most units are silent"
