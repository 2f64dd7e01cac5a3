"""The remaining linear layers: weight standardisation, fixed signs, groups; exact with D-RTRL where
they feed leaky states.
"""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, distance


class Leaky(brainstate.nn.Module):
    def __init__(self, layer, n):
        super().__init__()
        self.layer, self.n = layer, n

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, self.n)))

    def update(self, x):
        self.h.value = 0.8 * self.h.value + jnp.tanh(self.layer(x))
        return self.h.value


signs = jnp.where(jnp.arange(6)[:, None] % 2 == 0, 1.0, -1.0) * jnp.ones((6, 4))
layers = {
    "Linear": braintrace.nn.Linear(6, 4),
    "ScaledWSLinear": braintrace.nn.ScaledWSLinear(6, 4),
    "SignedWLinear": braintrace.nn.SignedWLinear(6, 4, w_sign=signs),
}
xs = brainstate.random.randn(6, 2, 6)
errors = {}
for name, layer in layers.items():
    model = Leaky(layer, 4)
    learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=2)
    expected = bptt(model, lambda x, m=model: jnp.sum(m(x) ** 2), xs)
    grads = learner.etrace_grad(
        xs, step_fn=lambda x, f=learner: jnp.sum(f(x) ** 2), reduction="sum"
    )
    errors[name] = distance(grads, expected)
assert max(errors.values()) < 1e-4, errors
