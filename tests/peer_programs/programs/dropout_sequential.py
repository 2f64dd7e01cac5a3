"""Dropout and layer normalisation in a `brainstate.nn.Sequential` around a recurrent cell, with
`environ.context(fit=True)` for training and `fit=False` for evaluation. D-RTRL.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(24)
n_steps, batch_size, n_in = 10, 16, 6

model = brainstate.nn.Sequential(
    braintrace.nn.Linear(n_in, 16),
    brainstate.nn.LayerNorm(16),
    brainstate.nn.Tanh(),
    brainstate.nn.Dropout(0.9),
    braintrace.nn.MGUCell(16, 20),
    brainstate.nn.Dropout(0.9),
    braintrace.nn.Linear(20, 2),
)
templates = brainstate.random.randn(2, 1, n_in)


def batch():
    labels = brainstate.random.randint(0, 2, (batch_size,))
    time = jnp.arange(n_steps)[:, None, None]
    sign = jnp.where(labels[:, None] == 0, jnp.cos(time / 2), jnp.sin(time / 2))
    noise = brainstate.random.randn(n_steps, batch_size, n_in)
    return sign * templates[0] + 0.5 * noise, labels


def start(learner):
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)


def twice(learner):
    outs = []
    for _ in range(2):
        start(learner)
        outs.append(learner.etrace_evolve(xs, return_outputs=True))
    return outs


cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
example = jnp.zeros((batch_size, n_in))

with brainstate.environ.context(fit=True):
    learner = braintrace.compile(model, braintrace.D_RTRL, example, batch_size=batch_size)

    def train(_):
        xs, labels = batch()
        start(learner)
        grads, losses = learner.etrace_grad(
            xs,
            step_fn=lambda x: cross_entropy(learner(x), labels).mean(),
            mask=(jnp.arange(n_steps) >= 3).astype(float),
            return_value=True,
        )
        optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
        return losses[3:].mean()

    losses = brainstate.transform.for_loop(train, jnp.arange(150))
    xs, labels = batch()
    noisy = twice(learner)

with brainstate.environ.context(fit=False):
    tester = braintrace.compile(model, braintrace.D_RTRL, example, batch_size=batch_size)
    plain = twice(tester)

assert losses[-10:].mean() < 0.6 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
assert not jnp.allclose(*noisy) and jnp.allclose(*plain), "dropout in training alone"
assert jnp.mean(plain[0][3:].sum(0).argmax(-1) == labels) > 0.8
