"""OSTTP: feedback matrices that are given, a target at every call, a zero target that teaches
hidden weights nothing.
"""

import brainstate
import braintools
import jax
import jax.numpy as jnp

import braintrace


class Spiking(brainstate.nn.Module):
    def __init__(self, n_in=4, n_rec=5, n_out=2):
        super().__init__()
        self.w = brainstate.ParamState(0.8 * brainstate.random.randn(n_in, n_rec))
        self.out = braintrace.nn.Linear(n_rec, n_out)
        self.n_rec = n_rec
        self.surrogate = braintools.surrogate.Sigmoid()

    def init_state(self, **kwargs):
        self.v = brainstate.HiddenState(jnp.zeros(self.n_rec))

    def update(self, x):
        self.v.value = 0.6 * self.v.value + braintrace.matmul(x, self.w.value)
        return self.out(self.surrogate(self.v.value - 0.5))


x, target = brainstate.random.randn(4), jnp.array([1.0, 0.0])
model = Spiking()
feedback = braintrace.FixedRandomFeedback(2, 5, jax.random.PRNGKey(0))
learner = braintrace.compile(model, braintrace.OSTTP, x, B_list=[feedback.B])
weights = model.states(brainstate.ParamState)


def gradient(y_target):
    learner.reset_state()
    return brainstate.transform.grad(
        lambda: jnp.sum((learner.update(x, y_target=y_target) - target) ** 2), weights
    )()


some, none = gradient(target), gradient(jnp.zeros(2))
assert jnp.any(some["w",] != 0) and jnp.all(none["w",] == 0)
assert jnp.any(none["out", "weight"]["weight"] != 0), "the output layer learns from its error"
