"""Conductance-based neurons with units throughout: weights in nS, exponential conductances,
reversal potentials, membranes in mV, and a loss in plain numbers.
"""

import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt

brainstate.random.seed(16)
n_in, n = 6, 4
E_exc, E_inh, E_leak = 0.0 * u.mV, -80.0 * u.mV, -60.0 * u.mV
V_th, g_leak, C = -50.0 * u.mV, 10.0 * u.nS, 0.2 * u.nF
tau_exc, tau_inh, dt = 5.0 * u.ms, 10.0 * u.ms, 1.0 * u.ms


class COBA(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        draw = lambda: brainstate.random.uniform(1.0, 6.0, (n_in, n)) * u.nS
        self.w_exc, self.w_inh = brainstate.ParamState(draw()), brainstate.ParamState(draw())
        self.spike = braintools.surrogate.Sigmoid()

    def init_state(self, batch_size=None, **kwargs):
        zeros = jnp.zeros((batch_size, n))
        self.g_exc = brainstate.HiddenState(zeros * u.nS)
        self.g_inh = brainstate.HiddenState(zeros * u.nS)
        self.V = brainstate.HiddenState(zeros * u.mV + E_leak)

    def update(self, spikes):
        self.g_exc.value = self.g_exc.value * jnp.exp(-dt / tau_exc) + braintrace.matmul(
            spikes[..., 0], self.w_exc.value
        )
        self.g_inh.value = self.g_inh.value * jnp.exp(-dt / tau_inh) + braintrace.matmul(
            spikes[..., 1], self.w_inh.value
        )
        V = self.V.value
        current = (
            self.g_exc.value * (E_exc - V) + self.g_inh.value * (E_inh - V) + g_leak * (E_leak - V)
        )
        V = V + (current / C * dt).in_unit(u.mV)
        z = self.spike((V - V_th) / (5.0 * u.mV))
        self.V.value = V + z * (E_leak - V_th)
        return self.V.value, z


model = COBA()
spikes = brainstate.random.bernoulli(0.3, size=(12, 2, n_in, 2)).astype(float)
learner = braintrace.compile(model, braintrace.D_RTRL, spikes[0], batch_size=2)


def loss_of(call):
    def loss(x):
        V, z = call(x)
        return jnp.mean(((V - E_leak) / u.mV) ** 2) / 100 + jnp.mean((z - 0.2) ** 2)

    return loss


expected = bptt(model, loss_of(model), spikes)
found = learner.etrace_grad(spikes, step_fn=loss_of(learner), reduction="sum", chunk_size=5)
number = lambda tree: [u.get_mantissa(v) for v in tree.values()]
for a, b in zip(number(found), number(expected), strict=True):
    assert jnp.allclose(a, b, rtol=1e-8), "without recurrence D-RTRL is exact"
assert learner.graph.hidden_groups[0].num_state == 3

# steps down the gradient, in the units of the weights
learning_rate = 20.0


@brainstate.transform.jit
def train():
    learner.reset_state()
    for state, first in zip(learner.hidden_states.values(), starts, strict=True):
        state.value = first
    grads, losses = learner.etrace_grad(spikes, step_fn=loss_of(learner), return_value=True)
    for path, weight in learner.param_states.items():
        weight.value = weight.value - learning_rate * u.get_mantissa(grads[path]) * u.nS
    return losses.mean()


brainstate.nn.init_all_states(model, batch_size=2)
learner = braintrace.compile(model, braintrace.D_RTRL, spikes[0], batch_size=2)
starts = [jax.tree.map(jnp.array, s.value) for s in learner.hidden_states.values()]
losses = [float(train()) for _ in range(30)]
assert losses[-1] < 0.9 * losses[0], losses
assert all(u.get_unit(w.value) == u.nS for w in learner.param_states.values())
