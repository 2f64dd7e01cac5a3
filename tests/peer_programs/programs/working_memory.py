"""Working memory of spiking neurons with slow adaptation: a cue, a silent delay, a probe, and the
question whether the two were the same. E-prop with a loss in the response period alone.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(13)
n_rec, batch_size, cue, delay, response = 24, 16, 4, 5, 5
n_steps = 2 * cue + delay + response


class ALIF(brainstate.nn.Module):
    def __init__(self, n_in):
        super().__init__()
        self.w_in = brainstate.ParamState(brainstate.random.randn(n_in, n_rec))
        self.w_rec = brainstate.ParamState(0.2 * brainstate.random.randn(n_rec, n_rec))
        self.out = braintrace.nn.Linear(n_rec, 2)
        self.spike = braintools.surrogate.ReluGrad()

    def init_state(self, batch_size=None, **kwargs):
        zeros = lambda: jnp.zeros((batch_size, n_rec))
        self.v, self.a = brainstate.HiddenState(zeros()), brainstate.HiddenState(zeros())

    def reset_state(self, batch_size=None, **kwargs):
        self.v.value = self.a.value = jnp.zeros((batch_size, n_rec))

    def spikes(self):
        return self.spike(self.v.value - 0.6 - 0.4 * self.a.value)

    def update(self, x):
        z = self.spikes()
        drive = braintrace.matmul(x, self.w_in.value) + braintrace.matmul(z, self.w_rec.value)
        self.a.value = 0.95 * self.a.value + jax.lax.stop_gradient(z)
        self.v.value = 0.8 * self.v.value + drive - 0.6 * jax.lax.stop_gradient(z)
        return self.out(self.spikes())


def trial():
    first, second = brainstate.random.randint(0, 2, (2, batch_size))
    time = jnp.arange(n_steps)[:, None]
    shown = lambda item, start: jnp.where(
        ((time >= start) & (time < start + cue))[..., None], jax.nn.one_hot(item, 2), 0.0
    )
    go = jnp.broadcast_to((time >= n_steps - response)[..., None], (n_steps, batch_size, 1))
    items = shown(first, 0) + shown(second, cue + delay)
    return jnp.concatenate([items, go.astype(float)], -1), (first == second).astype(int)


model = ALIF(3)
learner = braintrace.compile(
    model,
    braintrace.EProp,
    jnp.zeros((batch_size, 3)),
    batch_size=batch_size,
    feedback="symmetric",
    kappa_filter_decay=0.5,
)
optimizer = braintools.optim.Adam(2e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
mask = (jnp.arange(n_steps) >= n_steps - response).astype(float)


def train(_):
    xs, same = trial()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    cross_entropy = braintools.metric.softmax_cross_entropy_with_integer_labels
    grads, loss = learner.etrace_grad(
        xs,
        step_fn=lambda x: cross_entropy(learner(x), same).mean(),
        mask=mask,
        loss_output="scalar",
        return_value=True,
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return loss


losses = brainstate.transform.for_loop(train, jnp.arange(200))
assert losses[-20:].mean() < 0.8 * losses[:10].mean(), (losses[:10].mean(), losses[-20:].mean())
