"""A network is driven for a while before it learns: `etrace_evolve` moves states and traces through
a long warm-up that holds no outputs, then the same stream goes on under `etrace_grad`.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

brainstate.random.seed(30)
n_rec, warm_up, n_steps, batch_size = 20, 50, 30, 6


class SlowNet(brainstate.nn.Module):
    """Uncoupled integrators with time constants of up to a hundred steps."""

    def __init__(self):
        super().__init__()
        self.leak = 1 - jnp.logspace(-0.3, -2, n_rec)
        self.inward = braintrace.nn.Linear(2, n_rec)
        self.out = braintrace.nn.Linear(n_rec, 1)

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.h.value = jnp.zeros((batch_size, n_rec))

    def update(self, x):
        drive = jnp.tanh(self.inward(x))
        self.h.value = self.leak * self.h.value + (1 - self.leak) * drive
        return self.out(self.h.value)


def stream():
    xs = brainstate.random.randn(warm_up + n_steps, batch_size, 2)
    weight = 0.95 ** jnp.arange(40)
    product = jnp.tanh(xs[..., 0] + xs[..., 1])
    past = jnp.stack([jnp.roll(product, k, axis=0) for k in range(40)])
    ys = jnp.tensordot(weight / weight.sum(), past, axes=1)[..., None]
    return xs, 4 * ys


model = SlowNet()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 2)), batch_size=batch_size
)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)


def step_loss(x, y):
    return jnp.mean((learner(x) - y) ** 2)


def start():
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)


xs, ys = stream()
late = (jnp.arange(warm_up + n_steps) >= warm_up).astype(float)
expected = bptt(model, lambda x, y, w: w * jnp.mean((model(x) - y) ** 2), xs, ys, late)
nothing = learner.etrace_evolve(xs[:warm_up], return_outputs=False)
grads = learner.etrace_grad(xs[warm_up:], ys[warm_up:], step_fn=step_loss, reduction="sum")
assert nothing is None
assert close(grads, expected), "the traces of the warm-up are in the gradient"


def train(_):
    xs, ys = stream()
    start()
    learner.etrace_evolve(xs[:warm_up], return_outputs=False)
    grads, losses = learner.etrace_grad(
        xs[warm_up:], ys[warm_up:], step_fn=step_loss, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean()


losses = brainstate.transform.for_loop(train, jnp.arange(80))
assert losses[-5:].mean() < 0.3 * losses[:5].mean(), (losses[:5].mean(), losses[-5:].mean())
