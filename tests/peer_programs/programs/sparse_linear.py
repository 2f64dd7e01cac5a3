"""`nn.SparseLinear` between leaky layers, pp_prop, and the loss of a regression."""

import brainevent
import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace

mask = jax.random.uniform(jax.random.PRNGKey(2), (10, 16)) < 0.4
pattern = brainevent.CSR.fromdense(
    jnp.where(mask, 0.5 * jax.random.normal(jax.random.PRNGKey(3), (10, 16)), 0.0)
)


class SparseNet(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.sparse = braintrace.nn.SparseLinear(pattern, b_init=braintools.init.ZeroInit())
        self.out = braintrace.nn.Linear(16, 2)

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, 16)))

    def update(self, x):
        self.h.value = 0.7 * self.h.value + jnp.tanh(self.sparse(x))
        return self.out(self.h.value)


model = SparseNet()
xs, ys = brainstate.random.randn(10, 4, 10), brainstate.random.randn(10, 4, 2)
learner = braintrace.compile(model, braintrace.pp_prop, xs[0], batch_size=4, decay_or_rank=0.7)
optimizer = braintools.optim.Adam(0.02)
optimizer.register_trainable_weights(learner.param_states)


@brainstate.transform.jit
def epoch():
    learner.reset_state(batch_size=4)
    model.h.value = jnp.zeros((4, 16))
    grads, losses = learner.etrace_grad(
        xs, ys, step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2), return_value=True
    )
    optimizer.update(grads)
    return losses.mean()


losses = [float(epoch()) for _ in range(30)]
assert losses[-1] < 0.8 * losses[0], losses
