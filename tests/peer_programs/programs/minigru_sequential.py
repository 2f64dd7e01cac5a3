"""A stack of minimal gated cells made with `brainstate.nn.Sequential`, on a stream of bits whose
running parity of the last two must be told at every step. ES-D-RTRL.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

n_steps, batch_size = 14, 16


def streams():
    bits = brainstate.random.bernoulli(0.5, size=(n_steps, batch_size, 1)).astype(int)
    return 2.0 * bits - 1.0, (bits ^ jnp.roll(bits, 1, axis=0)).astype(float)


brainstate.random.seed(14)
model = brainstate.nn.Sequential(
    braintrace.nn.MiniGRU(1, 24),
    brainstate.nn.LayerNorm(24),
    braintrace.nn.MiniGRU(24, 24),
    braintrace.nn.Linear(24, 16),
    brainstate.nn.ReLU(),
    braintrace.nn.Linear(16, 1),
)
learner = braintrace.compile(
    model,
    braintrace.ES_D_RTRL,
    jnp.zeros((batch_size, 1)),
    batch_size=batch_size,
    decay_or_rank=0.7,
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
mask = (jnp.arange(n_steps) >= 1).astype(float)


def train(_):
    bits, parity = streams()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(x, y):
        logit = learner(x)
        loss = braintools.metric.sigmoid_binary_cross_entropy(logit, y).mean()
        return loss, jnp.mean((logit > 0) == y)

    grads, losses, right = learner.etrace_grad(
        bits, parity, step_fn=step_loss, mask=mask, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[1:].mean(), right[1:].mean()


losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(120))
assert losses[-10:].mean() < 0.5 * losses[:10].mean(), (losses[:10].mean(), losses[-10:].mean())
assert accuracies[-10:].mean() > 0.85, accuracies[-10:]
