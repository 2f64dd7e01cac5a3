"""Dale's law and sparse connectivity: signs by `SignedWLinear`, absent connections by `w_mask`. A
spiking network matches the rates of a teacher; masks and signs hold after training.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

brainstate.random.seed(28)
n_in, n_exc, n_inh, n_steps, batch_size = 10, 16, 4, 20, 8
n_rec = n_exc + n_inh
sign = jnp.where(jnp.arange(n_rec) < n_exc, 1.0, -1.0)[:, None] * jnp.ones(n_rec)
mask = brainstate.random.bernoulli(0.3, size=(n_in, n_rec)).astype(float)


class DaleNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.inward = braintrace.nn.Linear(n_in, n_rec, w_mask=mask)
        self.recurrent = braintrace.nn.SignedWLinear(
            n_rec, n_rec, w_init=braintools.init.Uniform(0.0, 0.1), w_sign=sign
        )
        self.readout = braintrace.nn.Linear(n_exc, 2)
        self.spike = braintools.surrogate.ReluGrad(alpha=0.5, width=1.0)

    def init_state(self, batch_size=None, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))
        self.r = brainstate.HiddenState(jnp.zeros((batch_size, n_rec)))

    def reset_state(self, batch_size=None, **kwargs):
        self.v.value = self.r.value = jnp.zeros((batch_size, n_rec))

    def update(self, x):
        z = self.spike(self.v.value - 0.5)
        self.v.value = 0.8 * self.v.value + self.inward(x) + self.recurrent(z) - 0.5 * z
        self.r.value = 0.9 * self.r.value + 0.1 * self.spike(self.v.value - 0.5)
        return self.readout(self.r.value[..., :n_exc])


xs = brainstate.random.bernoulli(0.3, size=(n_steps, batch_size, n_in)).astype(float)
time = jnp.arange(n_steps)[:, None] / n_steps
ys = jnp.stack([time * xs[..., :5].mean(2), time * xs[..., 5:].mean(2)], axis=-1) * 2

model = DaleNet()
learner = braintrace.compile(
    model, braintrace.ES_D_RTRL, xs[0], batch_size=batch_size, decay_or_rank=0.9
)
weights = model.states(brainstate.ParamState)
optimizer = braintools.optim.Adam(1e-2)
optimizer.register_trainable_weights(weights)
matrix = lambda name: jax.tree.leaves(weights[(name, "weight")].value)[-1]
before = {name: matrix(name) for name in ("inward", "recurrent")}


@brainstate.transform.jit
def epoch():
    brainstate.nn.reset_all_states(model, batch_size=batch_size)
    learner.reset_state(batch_size=batch_size)
    grads, losses = learner.etrace_grad(
        xs, ys, step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2), return_value=True
    )
    optimizer.update(brainstate.nn.clip_grad_norm(grads, 1.0))
    return losses.mean(), grads


losses = []
for _ in range(150):
    loss, grads = epoch()
    losses.append(float(loss))
of_mask = jax.tree.leaves(grads[("inward", "weight")])[-1]
assert losses[-1] < 0.6 * losses[0], (losses[0], losses[-1])
assert jnp.all(jnp.where(mask == 0, of_mask, 0.0) == 0), "what is absent has no gradient"
assert jnp.any(matrix("recurrent") != before["recurrent"])
silent = jnp.zeros(n_rec)
for pre in range(0, n_rec, 5):
    effect = model.recurrent(silent.at[pre].set(1.0))
    assert jnp.all(effect * sign[pre] >= 0), "every neuron has one sign"
