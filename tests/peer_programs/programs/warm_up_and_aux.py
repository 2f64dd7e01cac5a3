"""Sequence drivers: a warm-up that moves the traces on, masks, outputs beside the loss, chosen
weights.
"""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class Leaky(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(3, 5))
        self.w_out = brainstate.ParamState(brainstate.random.randn(5, 2))

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, 5)))

    def update(self, x):
        self.h.value = 0.9 * self.h.value + jnp.tanh(braintrace.matmul(x, self.w.value))
        return self.h.value @ self.w_out.value


model = Leaky()
xs, ys = brainstate.random.randn(10, 2, 3), brainstate.random.randn(10, 2, 2)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=2)
counts = (jnp.arange(10) >= 4).astype(float)
expected = bptt(model, lambda x, y, c: c * jnp.mean((model(x) - y) ** 2), xs, ys, counts)


def step_loss(x, y):
    out = learner(x)
    return jnp.mean((out - y) ** 2), out


assert learner.etrace_evolve(xs[:4], return_outputs=False) is None
grads, losses, outs = learner.etrace_grad(
    xs[4:],
    ys[4:],
    step_fn=step_loss,
    has_aux=True,
    return_value=True,
    reduction="sum",
    chunk_size=2,
)
assert close(grads, expected), "the gradient reaches back into the warm-up"
assert losses.shape == (6,) and outs.shape == (6, 2, 2)

learner.reset_state(batch_size=2)
model.h.value = jnp.zeros((2, 5))
masked = learner.etrace_grad(
    xs,
    ys,
    step_fn=lambda x, y: step_loss(x, y)[0],
    mask=counts,
    reduction="sum",
    weights={"w": model.w},
)
assert set(masked) == {"w"} and close(masked, {"w": expected["w",]})
