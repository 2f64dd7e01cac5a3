"""Saccade events like those of N-MNIST (two polarities, small movements) through two layers
of spiking neurons, once with OTTT and once with OTPE.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp
import numpy as np

import braintrace

rng = np.random.default_rng(32)
side, n_hidden, n_classes, n_steps, batch_size = 6, 24, 3, 12, 12
shapes = np.zeros((n_classes, side, side))
shapes[0, 1:5, 3] = 1.0  # a stroke
shapes[1, 1, 1:5] = shapes[1, 1:5, 4] = 1.0  # a seven
shapes[2, 1:5, 1:5] = 1.0
shapes[2, 2:4, 2:4] = 0.0  # a ring


def saccades(n_samples):
    """Events where the moved image becomes brighter (ON) or darker (OFF)."""
    labels = rng.integers(0, n_classes, n_samples)
    path = [(0, 1), (1, 0), (0, -1), (-1, 0)] * (n_steps // 4)
    image, frames = shapes[labels], []
    for shift in path:
        moved = np.roll(image, shift, (1, 2))
        events = np.stack([moved > image, moved < image], axis=-1)
        events = events & (rng.random(events.shape) < 0.9) | (rng.random(events.shape) < 0.02)
        frames.append(events.reshape(n_samples, -1))
        image = moved
    return np.array(frames, float), labels


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w1 = brainstate.ParamState(0.35 * brainstate.random.randn(2 * side**2, n_hidden))
        self.w2 = brainstate.ParamState(0.4 * brainstate.random.randn(n_hidden, n_classes))
        self.spike = braintools.surrogate.Sigmoid(alpha=4.0)

    def init_state(self, batch_size=None, **kwargs):
        self.v1 = brainstate.HiddenState(jnp.zeros((batch_size, n_hidden)))
        self.v2 = brainstate.HiddenState(jnp.zeros((batch_size, n_classes)))

    def reset_state(self, batch_size=None, **kwargs):
        self.v1.value = jnp.zeros((batch_size, n_hidden))
        self.v2.value = jnp.zeros((batch_size, n_classes))

    def update(self, x):
        self.v1.value = 0.8 * self.v1.value + braintrace.matmul(x, self.w1.value)
        spikes = self.spike(self.v1.value - 0.5)
        self.v2.value = 0.8 * self.v2.value + braintrace.matmul(spikes, self.w2.value)
        return self.v2.value


def run(algorithm, **options):
    brainstate.random.seed(32)
    model = Net()
    learner = braintrace.compile(
        model, algorithm, events[0, :batch_size], batch_size=batch_size, **options
    )
    optimizer = braintools.optim.Adam(1e-2)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))

    def train(chosen):
        brainstate.nn.reset_all_states(model, batch_size=batch_size)
        learner.reset_state(batch_size=batch_size)
        label = jnp.asarray(labels)[chosen]

        def step_loss(x):
            v = learner(x)
            loss = braintools.metric.softmax_cross_entropy_with_integer_labels(v, label)
            return loss.mean(), v

        grads, losses, vs = learner.etrace_grad(
            jnp.asarray(events)[:, chosen], step_fn=step_loss, has_aux=True, return_value=True
        )
        optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        return losses.mean(), jnp.mean(jax.nn.softmax(vs).sum(0).argmax(-1) == label)

    order = jnp.concatenate([jnp.asarray(rng.permutation(72)) for _ in range(10)])
    return brainstate.transform.for_loop(train, order.reshape(-1, batch_size))


events, labels = saccades(72)
ottt, right_by_ottt = run(braintrace.OTTT, mode="A", leak=0.8)
otpe, right_by_otpe = run(braintrace.OTPE, mode="approx", leak=0.8)
assert ottt[-6:].mean() < 0.5 * ottt[:6].mean() and right_by_ottt[-6:].mean() > 0.8, ottt
assert otpe[-6:].mean() < 0.5 * otpe[:6].mean() and right_by_otpe[-6:].mean() > 0.8, otpe
