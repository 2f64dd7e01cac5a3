"""OTPE (0.2.4) in both forms on two spiking layers under a leaky output: the loss of a regression
falls.
"""

import brainstate
import braintools
import jax.numpy as jnp

import braintrace
from peer_programs.reference import dead


class TwoLayers(brainstate.nn.Module):
    def __init__(self, n_in=4, n_rec=8, n_out=2):
        super().__init__()
        self.w1 = brainstate.ParamState(0.8 * brainstate.random.randn(n_in, n_rec))
        self.w2 = brainstate.ParamState(0.5 * brainstate.random.randn(n_rec, n_out))
        self.sizes = n_rec, n_out
        self.surrogate = braintools.surrogate.Sigmoid()

    def init_state(self, **kwargs):
        self.v1, self.v2 = (brainstate.HiddenState(jnp.zeros(n)) for n in self.sizes)

    def reset_state(self, **kwargs):
        self.v1.value, self.v2.value = (jnp.zeros(n) for n in self.sizes)

    def update(self, x):
        self.v1.value = 0.8 * self.v1.value + braintrace.matmul(x, self.w1.value)
        z = self.surrogate(self.v1.value - 0.5)
        self.v2.value = 0.8 * self.v2.value + braintrace.matmul(z, self.w2.value)
        return self.v2.value


xs, ys = brainstate.random.randn(10, 4), jnp.ones((10, 2))
falls = {}
for mode in ("full", "approx"):
    model = TwoLayers()
    learner = braintrace.compile(model, braintrace.OTPE, xs[0], mode=mode, leak=0.8)
    optimizer = braintools.optim.Adam(0.02)
    optimizer.register_trainable_weights(model.states(brainstate.ParamState))

    @brainstate.transform.jit
    def epoch(model=model, learner=learner, optimizer=optimizer):
        brainstate.nn.reset_all_states(model)
        learner.reset_state()
        grads, losses = learner.etrace_grad(
            xs, ys, step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2), return_value=True
        )
        optimizer.update(grads)
        return grads, losses.mean()

    history = [epoch() for _ in range(20)]
    falls[mode] = float(history[-1][1] / history[0][1])
    assert dead(history[0][0]) == []
assert all(ratio < 0.8 for ratio in falls.values()), falls
