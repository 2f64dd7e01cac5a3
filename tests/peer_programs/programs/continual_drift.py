"""Continual learning online: a linear-nonlinear system drifts and changes abruptly at half time. A
recurrent network with an update at every step follows it, where a frozen one does not.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(26)
n_in, n_rec, n_steps = 3, 24, 1600


class Tracker(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = braintrace.nn.MiniGRU(n_in, n_rec)
        self.out = braintrace.nn.Linear(n_rec, 1)

    def update(self, x):
        return self.out(self.rnn(x))


def system(xs):
    """A leaky filter of a drifting projection; its sign turns at half time."""
    time = jnp.arange(n_steps)
    angle = 0.002 * time
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle), 0.5 * jnp.ones(n_steps)], axis=-1)
    drive = jnp.where(time < n_steps // 2, 1.0, -1.0) * (xs * direction).sum(-1)

    def leak(h, d):
        h = 0.5 * h + 0.5 * d
        return h, h

    return brainstate.transform.scan(leak, jnp.array(0.0), drive)[1][:, None]


xs = brainstate.random.randn(n_steps, n_in)
ys = system(xs)
model = Tracker()
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0])
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.SGD(0.1, momentum=0.5)
optimizer.register_trainable_weights(weights)


def observe(x, y):
    loss_of = lambda: jnp.mean((learner(x) - y) ** 2)
    grads, loss = brainstate.transform.grad(loss_of, weights, return_value=True)()
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return loss


half = n_steps // 2
losses = brainstate.transform.for_loop(observe, xs[:half], ys[:half])
learned = losses[-200:].mean()
after = brainstate.transform.for_loop(observe, xs[half:], ys[half:])
frozen = jnp.mean((learner.etrace_evolve(xs[:half], return_outputs=True) - ys[:half]) ** 2)

assert learned < 0.3 * losses[:50].mean(), (losses[:50].mean(), learned)
assert after[:30].mean() > 2 * learned, "the change is a surprise"
assert after[-200:].mean() < 0.4 * after[:30].mean(), (after[:30].mean(), after[-200:].mean())
assert frozen > 2 * after[-200:].mean(), "what it has learned since is not what held before"
