"""Parameters of 0.1 that hold several entries under one operation, fixed ones, and operations that
are called with a weight alone.
"""

import warnings

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

warnings.simplefilter("ignore", DeprecationWarning)
brainstate.random.seed(20)
entries = {"scale": jnp.linspace(0.5, 1.5, 4), "bias": jnp.linspace(-0.2, 0.2, 4)}


class Cell(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = braintrace.ETraceParam(
            {"weight": brainstate.random.randn(3, 4), "bias": jnp.zeros(4)}, braintrace.MatMulOp()
        )
        self.leak = braintrace.ElemWiseParam(
            entries, op=lambda w: jax.nn.sigmoid(w["scale"] * 2 + w["bias"])
        )
        self.fixed = braintrace.FakeElemWiseParam(entries, op=lambda w: w["scale"] * 2)

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, 4)))

    def update(self, x):
        drive = jnp.tanh(self.w.execute(x)) * self.fixed.execute()
        self.h.value = self.leak.execute() * self.h.value + drive
        return self.h.value


model = Cell()
assert jnp.allclose(model.fixed.execute(), 2 * entries["scale"])
xs = brainstate.random.randn(8, 2, 3)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=2)
expected = bptt(model, lambda x: jnp.sum(model(x) ** 2), xs)
found = learner.etrace_grad(
    xs, step_fn=lambda x: jnp.sum(learner(x) ** 2), reduction="sum", chunk_size=3
)
assert close(found, expected)
assert set(found["leak",]) == {"scale", "bias"} and set(found) == {("w",), ("leak",)}

op = braintrace.ElemWiseOp(lambda w: w * 2)
assert jnp.allclose(op(jnp.ones(3)), 2) and jnp.allclose(op(None, jnp.ones(3)), 2)
assert braintrace.ElemWiseOp()(entries) is entries
average = braintrace.GradExpon(found, 0.9)
average.update(found)
assert close(average.update(found), jax.tree.map(lambda g: 1.9 * g, found))
