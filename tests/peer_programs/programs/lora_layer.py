"""Low-rank adaptation: the factors of a `LoRA` layer and of `lora_matmul` learn online, without a
trace of the product.
"""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class Adapted(brainstate.nn.Module):
    """A fixed input projection with a low-rank correction that is trained."""

    def __init__(self, n_in, n_rec, rank):
        super().__init__()
        self.fixed = 0.3 * brainstate.random.randn(n_in, n_rec)
        self.B = brainstate.ParamState(0.5 * brainstate.random.randn(n_in, rank))
        self.A = brainstate.ParamState(0.5 * brainstate.random.randn(rank, n_rec))
        self.n_rec = n_rec

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(
            jnp.zeros((self.n_rec,) if batch_size is None else (batch_size, self.n_rec))
        )

    def update(self, x):
        drive = x @ self.fixed + braintrace.lora_matmul(x, self.B.value, self.A.value, alpha=2.0)
        self.h.value = 0.8 * self.h.value + jnp.tanh(drive)
        return self.h.value


xs = brainstate.random.randn(8, 3, 10)
model = Adapted(10, 6, 2)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=3)
expected = bptt(model, lambda x: jnp.sum(model(x) ** 2), xs)
grads = learner.etrace_grad(xs, step_fn=lambda x: jnp.sum(learner(x) ** 2), reduction="sum")
assert close(grads, expected)


class WithLayer(Adapted):
    def __init__(self, n_in, n_rec, rank):
        brainstate.nn.Module.__init__(self)
        self.lora = braintrace.nn.LoRA(n_in, rank, n_rec)
        self.n_rec = n_rec

    def update(self, x):
        self.h.value = 0.8 * self.h.value + jnp.tanh(self.lora(x))
        return self.h.value


model = WithLayer(10, 6, 2)
for state in model.states(
    brainstate.ParamState
).values():  # a fresh adapter is zero: give it numbers
    state.value = {k: 0.4 * brainstate.random.randn(*v.shape) for k, v in state.value.items()}
learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=3)
expected = bptt(model, lambda x: jnp.sum(model(x) ** 2), xs)
grads = learner.etrace_grad(xs, step_fn=lambda x: jnp.sum(learner(x) ** 2), reduction="sum")
assert close(grads, expected)
