"""Parameters and operators of 0.1: they work and warn; `NonTempParam` has no trace, a fake
parameter no gradient.
"""

import warnings

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, distance

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    ETraceParam, ElemWiseParam, NonTempParam = (
        braintrace.ETraceParam,
        braintrace.ElemWiseParam,
        braintrace.NonTempParam,
    )
    MatMulOp, ElemWiseOp, FakeETraceParam = (
        braintrace.MatMulOp,
        braintrace.ElemWiseOp,
        braintrace.FakeETraceParam,
    )
assert all(issubclass(w.category, DeprecationWarning) for w in caught) and len(caught) >= 6


class Cell(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        weight = {"weight": brainstate.random.randn(n_in, n_rec), "bias": jnp.zeros(n_rec)}
        self.w = ETraceParam(
            weight, MatMulOp(weight_mask=(jnp.arange(n_in) > 0)[:, None].astype(float))
        )
        self.leak = ElemWiseParam(brainstate.random.randn(n_rec), ElemWiseOp(jax.nn.sigmoid))
        self.fixed = FakeETraceParam({"weight": 2 * jnp.eye(n_in)}, MatMulOp())
        self.out = NonTempParam({"weight": brainstate.random.randn(n_rec, n_out)}, MatMulOp())
        self.n_rec = n_rec

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, self.n_rec)))

    def update(self, x):
        drive = jnp.tanh(self.w.execute(self.fixed.execute(x)))
        self.h.value = self.leak.execute() * self.h.value + drive
        return self.out.execute(self.h.value)


model = Cell(4, 6, 2)
assert set(model.states(brainstate.ParamState)) == {("w",), ("leak",), ("out",)}
xs = brainstate.random.randn(7, 3, 4)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=3)
expected = bptt(model, lambda x: jnp.sum(model(x) ** 2), xs)
grads = learner.etrace_grad(xs, step_fn=lambda x: jnp.sum(learner(x) ** 2), reduction="sum")
assert jnp.all(grads["w",]["weight"][0] == 0), "masked"
assert distance(grads, expected) < 1e-4
assert {path for path, _ in learner.report.etrace_weights} == {("w",), ("leak",)}
