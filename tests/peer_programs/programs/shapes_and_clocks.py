"""Learners compiled from shapes alone, inputs of other widths than the example's, a clock that
counts in whole numbers, tokens of eight bits.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(21)


class Clocked(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = brainstate.ParamState(brainstate.random.randn(5, 4))

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, 4)))

    def reset_state(self, batch_size=None, **kwargs):
        self.h.value = jnp.zeros((batch_size, 4))

    def update(self, token, t):
        rows = braintrace.embedding(token, self.table.value)
        self.h.value = 0.8 * self.h.value + jnp.tanh(rows * jnp.cos(0.3 * t))
        return self.h.value


model = Clocked()
token, clock = jax.ShapeDtypeStruct((2,), jnp.int8), jax.ShapeDtypeStruct((), jnp.int32)
learner = braintrace.compile(model, braintrace.D_RTRL, token, clock, batch_size=2)

outs = []
for at in (3, np.int64(3), 3.0, jnp.asarray(3)):
    brainstate.nn.reset_all_states(model, batch_size=2)
    outs.append(learner(np.array([1, 4]), at))
assert all(jnp.array_equal(out, outs[0]) for out in outs) and jnp.any(outs[0] != 0)

try:
    learner(np.array([1, 300]), 3)
except ValueError as error:
    assert "holds 300" in str(error)
else:
    raise AssertionError("a token that eight bits do not hold")

brainstate.nn.reset_all_states(model, batch_size=2)
learner.reset_state()
tokens = brainstate.random.randint(0, 5, (9, 2)).astype(jnp.int8)
steps = jnp.arange(9)
expected = bptt(model, lambda x, t: jnp.sum(model(x, t) ** 2), tokens, steps)
found = learner.etrace_grad(
    tokens, steps, step_fn=lambda x, t: jnp.sum(learner(x, t) ** 2), reduction="sum", chunk_size=4
)
assert close(found, expected)
