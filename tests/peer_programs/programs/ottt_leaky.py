"""OTTT (0.2.4): a presynaptic trace with the membrane's leak, against its own formula."""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import close


class Spiking(brainstate.nn.Module):
    def __init__(self, n_in=4, n_rec=5):
        super().__init__()
        self.w = brainstate.ParamState(0.8 * brainstate.random.randn(n_in, n_rec))
        self.w_out = brainstate.ParamState(brainstate.random.randn(n_rec, 2))
        self.n_rec = n_rec
        self.surrogate = braintools.surrogate.Sigmoid()

    def init_state(self, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros(self.n_rec))

    def update(self, x):
        v = 0.6 * self.v.value + braintrace.matmul(x, self.w.value)
        self.v.value = v
        return self.surrogate(v - 0.5) @ self.w_out.value


xs = brainstate.random.randn(8, 4)
model = Spiking()
learner = braintrace.compile(model, braintrace.OTTT, xs[0], mode="A", leak=0.6)
grads = learner.etrace_grad(xs, step_fn=lambda x: jnp.sum(learner(x) ** 2), reduction="sum")

weights = model.states(brainstate.ParamState)
v, trace, expected = jnp.zeros(5), jnp.zeros(4), 0.0
for x in xs:
    trace = 0.6 * trace + x
    v = 0.6 * v + x @ model.w.value
    signal = brainstate.transform.grad(
        lambda v: jnp.sum((model.surrogate(v - 0.5) @ model.w_out.value) ** 2)
    )(v)
    expected = expected + jnp.outer(trace, signal)
assert close({"w": grads["w",]}, {"w": expected})
assert learner.mode == "A"
