"""The batching page: `compile(..., vmap=True)`, and a learner that is compiled inside a jitted
training step.
"""

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import dead


class SimpleGRU(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(n_in, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_out)

    def update(self, x):
        return self.out(self.rnn(x))


model = SimpleGRU(10, 6, 5)
batch_size = 4
algo_vmapped = braintrace.compile(
    model, braintrace.D_RTRL, jnp.zeros((batch_size, 10)), batch_size=batch_size, vmap=True
)
out = algo_vmapped(jnp.ones((batch_size, 10)))
assert out.shape == (batch_size, 5)
assert isinstance(algo_vmapped, brainstate.nn.Vmap) and isinstance(
    algo_vmapped, braintrace.ETraceVmap
)
assert algo_vmapped.module.report.counts["hidden_groups"] == 1


@brainstate.transform.jit
def train_step(inputs, targets):
    """inputs: (n_steps, batch_size, n_in), targets: (batch_size, n_out)"""
    weights = model.states(brainstate.ParamState)
    vmapped_algo = braintrace.compile(
        model, braintrace.D_RTRL, inputs[0], batch_size=inputs.shape[1], vmap=True
    )

    def step_fn(prev_grads, inp):
        def loss_fn(inp):
            out = vmapped_algo(inp)
            return jnp.mean((out - targets) ** 2)

        cur_grads = brainstate.transform.grad(loss_fn, weights)(inp)
        return jax.tree.map(lambda a, b: a + b, prev_grads, cur_grads), None

    grads = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
    grads, _ = brainstate.transform.scan(step_fn, grads, inputs)
    return grads


inputs, targets = brainstate.random.randn(5, 4, 10), jnp.zeros((4, 5))
inside = train_step(inputs, targets)

learner = braintrace.compile(
    model, braintrace.D_RTRL, inputs[0], batch_size=4
)  # states with a batch axis, no mapping
batched = learner.etrace_grad(
    inputs, step_fn=lambda x: jnp.mean((learner(x) - targets) ** 2), reduction="sum"
)

assert set(inside) == {("out", "weight"), *(("rnn", w, "weight") for w in ("Wz", "Wr", "Wh"))}
assert dead(inside) == []
assert all(
    jnp.allclose(a, b, rtol=1e-4, atol=1e-6)
    for key in batched
    for a, b in zip(jax.tree.leaves(inside[key]), jax.tree.leaves(batched[key]), strict=True)
)
