"""Every recurrent cell of `braintrace.nn` under a readout: the gradient of a whole sequence in one
multi-step call is BPTT's.
"""

import brainstate
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, distance


class Net(brainstate.nn.Module):
    def __init__(self, cell):
        super().__init__()
        self.rnn = cell(3, 4)
        self.out = braintrace.nn.Linear(4, 2)

    def update(self, x):
        return self.out(self.rnn(x))


names = [
    "ValinaRNNCell",
    "GRUCell",
    "CFNCell",
    "MGUCell",
    "LSTMCell",
    "URLSTMCell",
    "MinimalRNNCell",
    "MiniGRU",
    "MiniLSTM",
]
xs = brainstate.random.randn(4, 2, 3)
errors = {}
for name in names:
    model = Net(getattr(braintrace.nn, name))
    brainstate.nn.init_all_states(model, batch_size=2)
    learner = braintrace.D_RTRL(model, vjp_method="multi-step")
    learner.compile_graph(xs[0])
    expected = bptt(model, lambda x, m=model: jnp.sum(m(x) ** 2), xs)
    weights = model.states(brainstate.ParamState)
    loss = lambda x, f=learner: jnp.sum(f(braintrace.MultiStepData(x)) ** 2)
    errors[name] = distance(brainstate.transform.grad(loss, weights)(xs), expected)
assert max(errors.values()) < 1e-4, errors
