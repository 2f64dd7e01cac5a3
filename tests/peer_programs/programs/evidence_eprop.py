"""Evidence accumulation with e-prop: cues arrive on the left and on the right, and after a delay a
network of LIF and adaptive LIF neurons says on which side there were more.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace

brainstate.random.seed(10)
n_lif, n_alif, n_per_group, n_cues, batch_size = 12, 12, 5, 5, 16
n_rec, cue_steps, delay, recall = n_lif + n_alif, 3, 3, 3
n_steps, n_in = n_cues * cue_steps + delay + recall, 4 * n_per_group
no_self = 1.0 - jnp.eye(n_rec)  # no neuron reaches itself


class LSNN(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.beta = jnp.where(jnp.arange(n_rec) < n_lif, 0.0, 0.3)
        self.w_in = brainstate.ParamState(
            0.8 * brainstate.random.randn(n_in, n_rec) / jnp.sqrt(n_per_group)
        )
        self.w_rec = brainstate.ParamState(0.3 * brainstate.random.randn(n_rec, n_rec) / 5)
        self.w_out = brainstate.ParamState(0.3 * brainstate.random.randn(n_rec, 2))
        self.spike = braintools.surrogate.ReluGrad(alpha=0.3, width=1.0)

    def init_state(self, batch_size=None, **kwargs):
        zeros = lambda width: brainstate.HiddenState(jnp.zeros((batch_size, width)))
        self.v, self.a, self.z, self.y = zeros(n_rec), zeros(n_rec), zeros(n_rec), zeros(2)

    def reset_state(self, batch_size=None, **kwargs):
        for state in (self.v, self.a, self.z, self.y):
            state.value = jnp.zeros((batch_size, state.value.shape[-1]))

    def update(self, x):
        z = self.z.value
        current = braintrace.matmul(x, self.w_in.value) + braintrace.matmul(
            z, self.w_rec.value, weight_fn=lambda w: w * no_self
        )
        self.a.value = 0.97 * self.a.value + z
        self.v.value = 0.9 * self.v.value + current - 0.6 * z
        self.z.value = self.spike(self.v.value - 0.6 - self.beta * self.a.value)
        self.y.value = 0.8 * self.y.value + braintrace.matmul(self.z.value, self.w_out.value)
        return self.y.value


def trials():
    left = brainstate.random.bernoulli(0.5, size=(n_cues, batch_size))
    time = jnp.arange(n_steps)[:, None]
    in_cues = time < n_cues * cue_steps
    now = jnp.repeat(left, cue_steps, axis=0, total_repeat_length=n_steps)
    groups = jnp.stack(
        [
            in_cues & now,
            in_cues & ~now,
            jnp.broadcast_to(time >= n_steps - recall, now.shape),
            jnp.ones_like(now),
        ],
        axis=-1,
    )
    rate = jnp.repeat(groups * jnp.array([0.5, 0.5, 0.5, 0.05]), n_per_group, axis=-1)
    spikes = brainstate.random.bernoulli(rate, size=rate.shape).astype(float)
    return spikes, (left.sum(0) > n_cues / 2).astype(int)


model = LSNN()
learner = braintrace.compile(
    model,
    braintrace.EProp,
    jnp.zeros((batch_size, n_in)),
    batch_size=batch_size,
    feedback="symmetric",
    kappa_filter_decay=0.8,
)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))
mask = (jnp.arange(n_steps) >= n_steps - recall).astype(float)


def train(_):
    spikes, label = trials()
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(x):
        y = learner(x)
        loss = braintools.metric.softmax_cross_entropy_with_integer_labels(y, label)
        return loss.mean(), (y, model.z.value.mean())

    grads, losses, (outs, rates) = learner.etrace_grad(
        spikes, step_fn=step_loss, mask=mask, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[-recall:].mean(), jnp.mean(outs[-1].argmax(-1) == label), rates.mean()


losses, accuracies, rates = brainstate.transform.for_loop(train, jnp.arange(150))
assert losses[-20:].mean() < 0.6 * losses[:10].mean(), (losses[:10].mean(), losses[-20:].mean())
assert accuracies[-20:].mean() > 0.75, accuracies[-20:]
assert rates[-20:].mean() < 0.6
