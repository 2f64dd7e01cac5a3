"""A sequence in windows: single steps, three at a time, or as many as fit give one gradient; the
multi-step form, BPTT inside each window, gives another, which comes closer to BPTT.
"""

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close, distance

brainstate.random.seed(18)


class Net(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.out = braintrace.nn.MGUCell(3, 6), braintrace.nn.Linear(6, 2)

    def update(self, x):
        return self.out(self.rnn(x))


model = Net()
xs, ys = brainstate.random.randn(12, 2, 3), brainstate.random.randn(12, 2, 2)
learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=2)


def gradient(chunk_size):
    brainstate.nn.reset_all_states(model, batch_size=2)
    learner.reset_state(batch_size=2)
    return learner.etrace_grad(
        xs,
        ys,
        step_fn=lambda x, y: jnp.sum((learner(x) - y) ** 2),
        reduction="sum",
        chunk_size=chunk_size,
    )


one, three, most = gradient(1), gradient(3), gradient(None)
assert close(three, one) and close(most, one)

weights = model.states(brainstate.ParamState)
brainstate.nn.reset_all_states(model, batch_size=2)
expected = bptt(model, lambda x, y: jnp.sum((model(x) - y) ** 2), xs, ys)


def multi_step(size):
    brainstate.nn.init_all_states(model, batch_size=2)
    windowed = braintrace.compile(
        model, braintrace.D_RTRL, xs[0], batch_size=2, vjp_method="multi-step"
    )
    total = None
    for start in range(0, 12, size):
        x, y = xs[start : start + size], ys[start : start + size]
        found = brainstate.transform.grad(
            lambda x=x, y=y: jnp.sum((windowed(braintrace.MultiStepData(x)) - y) ** 2), weights
        )()
        total = found if total is None else jax.tree.map(jnp.add, total, found)
    return total


whole, in_two = multi_step(12), multi_step(6)
assert close(whole, expected), "one window that is the sequence"
assert 1e-6 < distance(in_two, expected) < distance(one, expected)
