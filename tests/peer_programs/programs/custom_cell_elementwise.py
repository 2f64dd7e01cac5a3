"""A cell of one's own: `matmul` for the input, `element_wise` for trainable time constants and
thresholds.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class LearnableLIF(brainstate.nn.Module):
    def __init__(self, n_in, n_rec):
        super().__init__()
        self.w = brainstate.ParamState(0.8 * brainstate.random.randn(n_in, n_rec))
        self.decay = brainstate.ParamState(brainstate.random.randn(n_rec))
        self.threshold = brainstate.ParamState(jnp.full(n_rec, 0.7))
        self.n_rec = n_rec
        self.spike = braintools.surrogate.Sigmoid()

    def init_state(self, batch_size=None, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros((batch_size, self.n_rec)))

    def update(self, x):
        leak = braintrace.element_wise(self.decay.value, weight_fn=jax.nn.sigmoid)
        threshold = braintrace.element_wise(self.threshold.value)
        v = leak * self.v.value + braintrace.matmul(x, self.w.value)
        z = self.spike(v - threshold)
        self.v.value = v - z * threshold
        return z


model = LearnableLIF(5, 6)
xs = brainstate.random.randn(9, 3, 5)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=3)
expected = bptt(model, lambda x: jnp.sum((model(x) - 0.4) ** 2), xs)
grads = learner.etrace_grad(xs, step_fn=lambda x: jnp.sum((learner(x) - 0.4) ** 2), reduction="sum")
assert close(grads, expected), "weights, time constants and thresholds"
assert {path for path, _ in learner.report.etrace_weights} == {("w",), ("decay",), ("threshold",)}
