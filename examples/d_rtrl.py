"""D-RTRL on delayed match to sample: was the second stimulus like the first, 50 steps ago?

A GRU of brainstate with a linear readout, unmodified, learns online: each update takes the gradient
of a sequence in memory that does not grow with its length. D-RTRL keeps a neuron's own path through
time, here its update gate, and leaves out the paths from neuron to neuron; BPTT keeps all. The
report says so for each parameter.
"""

import brainstate
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, module_through_time, table, train_module

import braintrace
from braintrace.tasks import delayed_match_to_sample

BATCH, WIDTH, CHANNELS, TEST = 64, 32, 20, 512


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.cell = brainstate.nn.GRUCell(CHANNELS, WIDTH)
        self.readout = brainstate.nn.Linear(WIDTH, 2)
        # The update gates start with time scales from 1 to 80 steps (Tallec and Ollivier, ICLR
        # 2018), for BPTT as well.
        gates = self.cell.Wrz.weight
        scales = jnp.concatenate(
            [jnp.zeros(WIDTH), -jnp.log(brainstate.random.uniform(1.0, 80.0, WIDTH))]
        )
        gates.value = {**gates.value, "bias": scales}

    def update(self, x):
        return self.readout(self.cell(x))


def online(model):
    learner = braintrace.compile(model, "d_rtrl", jnp.zeros((BATCH, CHANNELS)), batch_size=BATCH)
    print(learner.report, "\n")

    def gradient(trials):
        learner.reset_state(model=True)
        return learner.etrace_grad(
            trials.x,
            trials.y,
            step_fn=lambda x, y: cross_entropy(learner(x), y),
            mask=trials.mask,
            loss_output="total",
            return_value=True,
            return_state=False,
        )

    return gradient


def through_time(model):
    return lambda trials: module_through_time(model, BATCH, trials.y, trials.mask, trials.x)


def run(method, seed, updates):
    """`(accuracy, first and last loss, seconds)`."""
    brainstate.random.seed(seed)
    model = Network()
    batches = (delayed_match_to_sample(BATCH, seed=[seed, k]) for k in range(updates))
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(5e-3))
    losses, seconds = train_module(model, method(model), batches, optimizer)
    test = delayed_match_to_sample(TEST, seed=[seed, updates, 1])
    brainstate.nn.init_all_states(model, batch_size=TEST)
    right = brainstate.transform.for_loop(model, test.x).argmax(-1) == test.y
    return float(right[test.mask > 0].mean()), np.mean(losses[:10]), np.mean(losses[-10:]), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    updates = 60 if args.quick else 600
    rows = [
        (name, *run(method, args.seed, updates))
        for name, method in (("D-RTRL", online), ("BPTT", through_time))
    ]
    print(table(("method", "accuracy", "first loss", "last loss", "seconds"), *rows))
