"""Forecasting of the chaotic Mackey-Glass series six steps ahead: a leaky network with
time constants from short to long and a readout, tested on what follows.
"""

import brainstate
import braintools
import jax.numpy as jnp
import numpy as np

import braintrace

brainstate.random.seed(15)
n_rec, horizon = 32, 6


def mackey_glass(length, delay=17, dt=1.0):
    x = np.full(length + delay, 1.2)
    for t in range(delay, length + delay - 1):
        lagged = x[t - delay]
        x[t + 1] = x[t] + dt * (0.2 * lagged / (1 + lagged**10) - 0.1 * x[t])
    return x[delay:] - 0.9


class Forecaster(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.leak = jnp.logspace(0, -1.3, n_rec)
        self.inward = braintrace.nn.Linear(
            1 + n_rec, n_rec, w_init=braintools.init.XavierNormal(scale=1.0)
        )
        self.readout = braintrace.nn.Linear(n_rec, 1)

    def init_state(self, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros(n_rec))

    def reset_state(self, **kwargs):
        self.h.value = jnp.zeros(n_rec)

    def update(self, x):
        new = jnp.tanh(self.inward(jnp.concatenate([x, self.h.value])))
        self.h.value = (1 - self.leak) * self.h.value + self.leak * new
        return self.readout(self.h.value)


series = jnp.asarray(mackey_glass(400 + horizon))[100:, None]
xs, ys = series[:-horizon], series[horizon:]
model = Forecaster()
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0])
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


def error(x, y):
    return jnp.mean((learner(x) - y) ** 2)


def epoch(_):
    """States and traces wash in over 30 steps, then 170 steps are learned."""
    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    learner.etrace_evolve(xs[:30], return_outputs=False)
    grads, errors = learner.etrace_grad(xs[30:200], ys[30:200], step_fn=error, return_value=True)
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return errors.mean()


losses = brainstate.transform.for_loop(epoch, jnp.arange(80))
forecasts = learner.etrace_evolve(xs[200:], return_outputs=True)
unseen = jnp.mean((forecasts - ys[200:]) ** 2)
persistence = jnp.mean((xs - ys)[200:] ** 2)  # the forecast that nothing changes
assert losses[-5:].mean() < 0.4 * losses[:5].mean(), losses
assert unseen < 0.5 * persistence, (unseen, persistence)
