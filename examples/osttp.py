"""OSTTP on Japanese Vowels: three layers of spiking neurons learn from projected targets, without
any error from above.

The learning signal of each hidden layer is a fixed random projection of the target, here the
speaker at every frame; only the readout sees its error. So a layer could update while the layers
above still compute. The model is a brainstate module. Rows share weights, batches and optimiser;
"readout only" shows what the random hidden layers give by themselves.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import optax
from _common import arguments, cross_entropy, module_through_time, spike, table, train_module
from _vowels import BATCH, COEFFICIENTS, HEADING, SPEAKERS, epochs, wanted

import braintrace
from braintrace.tasks import japanese_vowels

LEAK, WIDTH, EPOCHS = 0.8, 64, 60


class LIF(brainstate.nn.Module):
    def __init__(self, inputs, width):
        super().__init__()
        self.drive = brainstate.nn.Linear(inputs, width, w_init=brainstate.nn.init.LecunNormal())

    def init_state(self, batch_size=None, **_):
        self.V = brainstate.HiddenState(jnp.zeros((batch_size, *self.drive.out_size)))

    def update(self, x):
        v = self.V.value
        self.V.value = LEAK * (v - jax.lax.stop_gradient(spike(v - 1))) + self.drive(x)
        return spike(self.V.value - 1)


class Network(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = brainstate.nn.Sequential(
            LIF(COEFFICIENTS, WIDTH), LIF(WIDTH, WIDTH), LIF(WIDTH, WIDTH)
        )
        self.readout = brainstate.nn.Linear(WIDTH, SPEAKERS)

    def update(self, x):
        return self.readout(self.hidden(x))


def projected(model):
    learner = braintrace.compile(
        model, "osttp", jnp.zeros((BATCH, COEFFICIENTS)), batch_size=BATCH, feedback_key=0
    )

    def step_loss(x, label):
        return cross_entropy(learner(x), label)

    def gradient(batch):
        label, weight = wanted(batch)
        learner.reset_state(model=True)
        return learner.etrace_grad(
            batch.x,
            label,
            step_fn=step_loss,
            mask=weight,
            y_target=jax.nn.one_hot(label, SPEAKERS),
            loss_output="total",
            return_value=True,
            return_state=False,
        )

    return gradient


def through_time(model):
    def gradient(batch):
        label, weight = wanted(batch)
        return module_through_time(model, BATCH, label, weight, batch.x)

    return gradient


def readout_only(model):
    def gradient(batch):
        gradients, loss = through_time(model)(batch)
        return {
            k: g if k[0] == "readout" else jax.tree.map(jnp.zeros_like, g)
            for k, g in gradients.items()
        }, loss

    return gradient


def run(method, args):
    """`(test accuracy, first and last loss, seconds)`."""
    brainstate.random.seed(args.seed)
    model, data = Network(), japanese_vowels()
    batches = epochs(data, 10 if args.quick else EPOCHS, args.seed)
    losses, seconds = train_module(model, method(model), batches, optax.adam(5e-3))
    brainstate.nn.init_all_states(model, batch_size=len(data.test.label))
    evidence = (
        jax.nn.log_softmax(brainstate.transform.for_loop(model, data.test.x))
        * data.test.mask[..., None]
    )
    accuracy = float((evidence.sum(0).argmax(-1) == data.test.label).mean())
    return accuracy, float(np.mean(losses[:9])), float(np.mean(losses[-9:])), seconds


if __name__ == "__main__":
    args = arguments(__doc__)
    methods = {"OSTTP": projected, "BPTT": through_time, "readout only": readout_only}
    print(table(HEADING, *[(name, *run(method, args)) for name, method in methods.items()]))
