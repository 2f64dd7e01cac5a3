"""Convolutions of one and two dimensions into leaky feature maps, in a batch, with bias and
strides: exact with D-RTRL.
"""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class LeakyMap(brainstate.nn.Module):
    def __init__(self, conv, shape):
        super().__init__()
        self.conv, self.shape = conv, shape

    def init_state(self, batch_size=None, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros((batch_size, *self.shape)))

    def update(self, x):
        self.v.value = 0.7 * self.v.value + jnp.tanh(self.conv(x))
        return self.v.value


cases = [
    (braintrace.nn.Conv1d((8, 2), 3, 3), (8, 3), (8, 2)),
    (braintrace.nn.Conv2d((6, 6, 2), 3, 3, stride=2), (3, 3, 3), (6, 6, 2)),
]
errors = []
for conv, shape, in_size in cases:
    model = LeakyMap(conv, shape)
    xs = brainstate.random.randn(5, 2, *in_size)
    learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=2)
    expected = bptt(model, lambda x, m=model: jnp.sum(m(x) ** 2), xs)
    grads = learner.etrace_grad(
        xs, step_fn=lambda x, f=learner: jnp.sum(f(x) ** 2), reduction="sum"
    )
    errors.append(close(grads, expected))
assert errors == [True, True]
