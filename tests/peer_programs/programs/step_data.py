"""The batching page on time: `SingleStepData` is a step, `MultiStepData` a sequence that the
algorithm loops over itself.
"""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class SimpleGRU(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        self.rnn = braintrace.nn.GRUCell(n_in, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_out)

    def update(self, x):
        return self.out(self.rnn(x))


model = SimpleGRU(10, 6, 5)
weights = model.states(brainstate.ParamState)
sequence = brainstate.random.randn(7, 10)

algo = braintrace.D_RTRL(model)
brainstate.nn.init_all_states(model)
algo.compile_graph(jnp.zeros(10))
single = algo(braintrace.SingleStepData(sequence[0]))
brainstate.nn.reset_all_states(model)
algo.reset_state()
assert jnp.allclose(algo(sequence[0]), single), "a marked step is the bare array"
assert single.shape == (5,)

# With vjp_method='multi-step', BPTT inside the call: from traces of zero that is the whole
# gradient.
brainstate.nn.init_all_states(model)
windowed = braintrace.ParamDimVjpAlgorithm(model, vjp_method="multi-step")
windowed.compile_graph(jnp.zeros(10))
expected = bptt(model, lambda x: jnp.sum(model(x) ** 2), sequence)
found = brainstate.transform.grad(
    lambda x: jnp.sum(windowed(braintrace.MultiStepData(x)) ** 2), weights
)(sequence)
assert close(found, expected)

# With 'single-step' it is the sum of the steps' own gradients, which leaves the recurrent weights'
# paths out.
brainstate.nn.init_all_states(model)
stepwise = braintrace.compile(model, braintrace.D_RTRL, sequence[0])
many = brainstate.transform.grad(
    lambda x: jnp.sum(stepwise(braintrace.MultiStepData(x)) ** 2), weights
)(sequence)
brainstate.nn.reset_all_states(model)
stepwise.reset_state()
one_by_one = stepwise.etrace_grad(
    sequence, step_fn=lambda x: jnp.sum(stepwise(x) ** 2), reduction="sum"
)
assert close(many, one_by_one)
assert not close(many, expected, 1e-3)
