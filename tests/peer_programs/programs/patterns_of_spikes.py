"""Pattern generation: a recurrent spiking network with frozen input noise learns three slow curves.
E-prop with fixed random feedback, the form of it that needs no transported weights.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(12)
n_in, n_rec, n_out, n_steps = 12, 40, 3, 50


class SpikingRNN(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w_in = brainstate.ParamState(0.4 * brainstate.random.randn(n_in, n_rec))
        self.w_rec = brainstate.ParamState(0.1 * brainstate.random.randn(n_rec, n_rec))
        self.w_out = brainstate.ParamState(0.1 * brainstate.random.randn(n_rec, n_out))
        self.spike = braintools.surrogate.ReluGrad(alpha=0.5, width=1.0)

    def init_state(self, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros(n_rec))
        self.z = brainstate.HiddenState(jnp.zeros(n_rec))

    def reset_state(self, **kwargs):
        self.v.value, self.z.value = jnp.zeros(n_rec), jnp.zeros(n_rec)

    def update(self, x):
        current = braintrace.matmul(x, self.w_in.value)
        current = current + braintrace.matmul(self.z.value, self.w_rec.value)
        self.v.value = 0.9 * self.v.value + current - self.z.value
        self.z.value = self.spike(self.v.value - 0.6)
        return self.z.value @ self.w_out.value


frozen_noise = brainstate.random.bernoulli(0.2, size=(n_steps, n_in)).astype(float)
phase = jnp.arange(n_steps)[:, None] / n_steps * 2 * jnp.pi
curves = jnp.concatenate(
    [jnp.sin(phase), 0.5 * jnp.cos(2 * phase), 0.5 * jnp.sin(3 * phase + 1)], axis=1
)

model = SpikingRNN()
learner = braintrace.compile(
    model,
    braintrace.EProp,
    frozen_noise[0],
    feedback="random",
    kappa_filter_decay=0.3,
    random_feedback_key=jax.random.PRNGKey(12),
)
schedule = braintools.optim.StepLR(2e-2, step_size=60, gamma=0.5)
optimizer = braintools.optim.Adam(schedule)
optimizer.register_trainable_weights(model.states(brainstate.ParamState))


@brainstate.transform.jit
def epoch():
    brainstate.nn.reset_all_states(model)
    learner.reset_state()
    grads, losses = learner.etrace_grad(
        frozen_noise,
        curves,
        step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2),
        return_value=True,
    )
    optimizer.update(grads)
    return losses.mean()


losses = []
for _ in range(120):
    losses.append(float(epoch()))
    schedule.step()
variance = float(curves.var())
assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])
assert losses[-1] < 0.6 * variance, "better than the mean of the curves"
