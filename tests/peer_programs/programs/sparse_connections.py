"""The operators page: `sparse_matmul` with a `brainevent.CSR`; the parameter is the array of its
stored entries.
"""

import brainevent
import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close

keep = jax.random.uniform(jax.random.PRNGKey(0), (20, 12)) < 0.2
dense = jnp.where(keep, jax.random.normal(jax.random.PRNGKey(1), (20, 12)), 0.0)


class Sparse(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.mat = brainevent.CSR.fromdense(dense)
        self.weight = brainstate.ParamState(self.mat.data)

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, 12)))

    def update(self, x):
        drive = braintrace.sparse_matmul(x, self.weight.value, sparse_mat=self.mat)
        self.h.value = 0.8 * self.h.value + jnp.tanh(drive)
        return self.h.value


model = Sparse()
xs = brainstate.random.randn(6, 2, 20)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=2)
expected = bptt(model, lambda x: jnp.sum(model(x) ** 2), xs)
grads = learner.etrace_grad(xs, step_fn=lambda x: jnp.sum(learner(x) ** 2), reduction="sum")

assert close(grads, expected)
sizes = [v.size for v in jax.tree.leaves(learner.get_etrace_of(model.weight))]
assert sum(sizes) <= 2 * model.weight.value.size * 2, (
    "traces of the stored entries, not of the full matrix"
)
