"""A rate network under Dale's law that integrates noisy evidence: the outgoing weights of a unit
have one sign, before and after learning.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(8)
n_rec, n_exc, n_steps, batch_size = 20, 16, 15, 16


class DaleRNN(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.sign = jnp.where(jnp.arange(n_rec) < n_exc, 1.0, -1.0)[:, None]
        self.w_in = brainstate.ParamState(0.5 * brainstate.random.randn(2, n_rec))
        self.w_rec = brainstate.ParamState(0.15 * brainstate.random.randn(n_rec, n_rec))
        self.w_out = brainstate.ParamState(0.3 * brainstate.random.randn(n_exc, 2))

    def init_state(self, batch_size=None, **kwargs):
        self.x = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.x.value = jnp.zeros((batch_size, n_rec))

    def recurrent(self):
        return self.sign * jnp.abs(self.w_rec.value) * (1 - jnp.eye(n_rec))

    def update(self, evidence):
        rate = jax.nn.relu(self.x.value)
        drive = braintrace.matmul(evidence, self.w_in.value)
        drive = drive + braintrace.matmul(rate, self.recurrent())
        self.x.value = 0.8 * self.x.value + 0.2 * drive
        return braintrace.matmul(jax.nn.relu(self.x.value)[:, :n_exc], self.w_out.value)


model = DaleRNN()
learner = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 2)), batch_size=batch_size
)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)
late = (jnp.arange(n_steps) >= n_steps - 5).astype(float)


def train(_):
    side = brainstate.random.randint(0, 2, (batch_size,))
    evidence = 0.5 * jax.nn.one_hot(side, 2) + 0.5 * brainstate.random.randn(n_steps, batch_size, 2)
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)

    def step_loss(x):
        out = learner(x)
        loss = braintools.metric.softmax_cross_entropy_with_integer_labels(out, side).mean()
        return loss, out

    grads, losses, outs = learner.etrace_grad(
        evidence, step_fn=step_loss, mask=late, has_aux=True, return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses[-5:].mean(), jnp.mean(outs[-1].argmax(-1) == side)


before = model.recurrent()
losses, accuracies = brainstate.transform.for_loop(train, jnp.arange(120))
after = model.recurrent()
assert losses[-10:].mean() < 0.7 * losses[:10].mean()
assert accuracies[-10:].mean() > 0.8, accuracies[-10:]
assert jnp.all(after * model.sign >= 0) and not jnp.allclose(before, after), "Dale's law holds"
