"""The quick start of the package's page: a GRU under a linear readout, one call over a sequence."""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, dead, distance


class GRUNet(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(n_in, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_out)

    def update(self, x):
        return self.out(self.rnn(x))


model = GRUNet(3, 8, 1)
learner = braintrace.compile(model, braintrace.D_RTRL, jnp.zeros((1, 3)), batch_size=1)


def step_loss(x, y):
    return jnp.mean((learner(x) - y) ** 2)


xs = brainstate.random.randn(30, 1, 3)
ys = brainstate.random.randn(30, 1, 1)
expected = bptt(model, lambda x, y: jnp.mean((model(x) - y) ** 2), xs, ys, reduce=jnp.mean)
grads, losses = learner.etrace_grad(xs, ys, step_fn=step_loss, return_value=True)

assert losses.shape == (30,)
assert dead(grads) == [], "every parameter learns, the readout too"
readout = ("out", "weight")
assert distance({readout: grads[readout]}, {readout: expected[readout]}) < 1e-5, (
    "the readout's gradient is that of BPTT"
)
