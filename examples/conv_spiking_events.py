"""A convolutional spiking network watches event frames: in which of four directions does the bar
move?

Frames of 12 x 12 pixels with two channels, as an event camera gives them: where the image became
brighter, and where darker, with noise. One frame tells nothing; the direction is in their order.
Two convolutions with leaky spiking neurons and a leaky readout, a brainstate module; pp_prop keeps
factors of the traces, since a trace of each weight at each pixel would be large.
"""

import brainstate
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, module_through_time, spike, table, train_module

import braintrace

BATCH, SIDE, STEPS, CLASSES, TEST, NOISE = 32, 12, 20, 4, 256, 0.02
LEAK = 0.8


class Spiking(brainstate.nn.Module):
    """A convolution into leaky integrate-and-fire neurons."""

    def __init__(self, in_size, channels, stride):
        super().__init__()
        self.conv = brainstate.nn.Conv2d(in_size, channels, 3, stride=stride)
        weights = self.conv.weight.value
        self.conv.weight.value = {
            **weights,
            "weight": 2.0 * weights["weight"],
        }  # so that the neurons spike

    def init_state(self, batch_size):
        self.v = brainstate.HiddenState(jnp.zeros((batch_size, *self.conv.out_size)))

    def update(self, x):
        v = self.v.value
        self.v.value = LEAK * v + self.conv(x) - braintrace.stop_trace(spike(v - 1))
        return spike(self.v.value - 1)


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = Spiking((SIDE, SIDE, 2), 8, 2)
        self.second = Spiking(self.first.conv.out_size, 16, 2)
        self.readout = brainstate.nn.Linear(int(np.prod(self.second.conv.out_size)), CLASSES)

    def init_state(self, batch_size):
        self.y = brainstate.HiddenState(jnp.zeros((batch_size, CLASSES)))

    def update(self, x):
        z = self.second(self.first(x))
        self.y.value = LEAK * self.y.value + self.readout(z.reshape(z.shape[0], -1))
        return self.y.value


def trials(batch, seed):
    """`(frames, labels)`: (STEPS, batch, SIDE, SIDE, 2) and (STEPS, batch)."""
    random = np.random.default_rng(seed)
    label, start = random.integers(0, CLASSES, batch), random.integers(0, SIDE, batch)
    where = (
        start + np.arange(STEPS + 1)[:, None] * np.where(label % 2, 1, -1)
    ) % SIDE  # of the bar
    image = np.broadcast_to(
        (np.arange(SIDE) == where[..., None])[:, :, None, :], (STEPS + 1, batch, SIDE, SIDE)
    )
    image = np.where((label < 2)[:, None, None], image, image.swapaxes(2, 3)).astype(np.float32)
    change = np.diff(image, axis=0)
    events = np.stack([change > 0, change < 0], -1) ^ (random.random((*change.shape, 2)) < NOISE)
    return events.astype(np.float32), np.broadcast_to(label, (STEPS, batch))


def late():
    """The loss counts in the second half of a trial."""
    return jnp.broadcast_to(jnp.arange(STEPS)[:, None] >= STEPS // 2, (STEPS, BATCH)).astype(
        jnp.float32
    )


def online(model):
    frames, _ = trials(BATCH, 0)
    learner = braintrace.compile(
        model, "pp_prop", jnp.asarray(frames[0]), batch_size=BATCH, decay_or_rank=LEAK
    )
    print(learner.report, "\n")

    def gradient(batch):
        learner.reset_state(model=True)
        return learner.etrace_grad(
            *batch,
            step_fn=lambda x, y: cross_entropy(learner(x), y),
            mask=late(),
            loss_output="total",
            return_value=True,
            return_state=False,
        )

    return gradient


def through_time(model):
    return lambda batch: module_through_time(model, BATCH, batch[1], late(), batch[0])


def run(method, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    brainstate.random.seed(seed)
    model = Network()
    batches = (trials(BATCH, [seed, k]) for k in range(updates))
    losses, seconds = train_module(model, method(model), batches, optax.adam(3e-3))
    frames, label = trials(TEST, [seed, updates, 1])
    brainstate.nn.init_all_states(model, batch_size=TEST)
    right = brainstate.transform.for_loop(model, jnp.asarray(frames))[-1].argmax(-1) == label[-1]
    return float(right.mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 40 if args.quick else 300
    rows = [
        (name, *run(method, args.seed, updates))
        for name, method in (("pp_prop", online), ("BPTT", through_time))
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
