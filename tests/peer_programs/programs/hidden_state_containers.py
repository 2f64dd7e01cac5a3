"""The page on hidden states: one array, several in a group, several by name; the groups that the
compiler finds.
"""

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class SimpleNeuron(brainstate.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(size, size) * 0.1)
        self.h = brainstate.HiddenState(jnp.zeros(size))

    def update(self, x):
        self.h.value = jax.nn.tanh(x + braintrace.matmul(self.h.value, self.w.value))
        return self.h.value


class AdaptiveNeuron(brainstate.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(size, size) * 0.1)
        self.state = brainstate.HiddenGroupState(jnp.zeros((size, 2)))

    def update(self, x):
        V, I = self.state.get_value(0), self.state.get_value(1)
        new_V = 0.9 * V + braintrace.matmul(x, self.w.value) - I
        new_I = 0.95 * I + 0.1 * V
        self.state.value = jnp.stack([new_V, new_I], axis=-1)
        return new_V


class TreeNeuron(brainstate.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(size, size) * 0.1)
        zero = jnp.zeros(size)
        self.state = brainstate.HiddenTreeState(
            {"I1": zero, "I2": zero, "V": zero, "V_th": jnp.ones(size)}
        )

    def update(self, x):
        I1, I2, V, V_th = (self.state.get_value(k) for k in ("I1", "I2", "V", "V_th"))
        new_V = 0.8 * V + braintrace.matmul(x, self.w.value) + I1 + I2
        self.state.set_value(
            {"I1": 0.9 * I1 + 0.1 * V, "I2": 0.95 * I2, "V": new_V, "V_th": 0.99 * V_th + 0.01 * V}
        )
        return new_V - V_th


xs = brainstate.random.randn(6, 5)
for neuron, path, states, exact in (
    (SimpleNeuron(5), ("h",), 1, False),
    (AdaptiveNeuron(5), ("state",), 2, True),
    (TreeNeuron(5), ("state",), 4, True),
):
    brainstate.nn.init_all_states(neuron)
    groups, path_map = braintrace.find_hidden_groups_from_module(neuron, jnp.zeros(5))
    [group] = groups
    assert (
        list(group.hidden_paths) == [path] and group.num_state == states and group.varshape == (5,)
    )
    assert path_map[path] is group or path_map[path] == group
    learner = braintrace.compile(neuron, braintrace.D_RTRL, xs[0])
    expected = bptt(neuron, lambda x, m=neuron: jnp.sum(m(x) ** 2), xs)
    grads = learner.etrace_grad(
        xs, step_fn=lambda x, f=learner: jnp.sum(f(x) ** 2), reduction="sum"
    )
    assert close(grads, expected) == exact, path

assert isinstance(groups[0], braintrace.HiddenGroup)
