"""The older batching page: states made under `vmap_new_states`, the algorithm mapped with
`brainstate.nn.Vmap`.
"""

import brainstate
import jax
import jax.numpy as jnp

import braintrace
from peer_programs.reference import bptt, close


class Leaky(brainstate.nn.Module):
    """Without recurrent weights, so that D-RTRL is exact."""

    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        self.inp = braintrace.nn.Linear(n_in, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_out)
        self.n_rec = n_rec

    def init_state(self, batch_size=None, **kwargs):
        self.h = brainstate.HiddenState(
            jnp.zeros((self.n_rec,) if batch_size is None else (batch_size, self.n_rec))
        )

    def update(self, x):
        self.h.value = 0.8 * self.h.value + jnp.tanh(self.inp(x))
        return self.out(self.h.value)


model = Leaky(10, 6, 5)
batch_size = 4
algo = braintrace.D_RTRL(model)


@brainstate.transform.vmap_new_states(state_tag="new", axis_size=batch_size)
def init():
    brainstate.nn.init_all_states(model)
    algo.compile_graph(jnp.zeros(10))


init()
algo_vmapped = brainstate.nn.Vmap(algo, vmap_states="new")
weights = model.states(brainstate.ParamState)
inputs = brainstate.random.randn(6, batch_size, 10)


def loss_fn(inp):
    return jnp.sum(algo_vmapped(inp) ** 2)


def step_fn(prev_grads, inp):
    cur_grads = brainstate.transform.grad(loss_fn, weights)(inp)
    return jax.tree.map(lambda a, b: a + b, prev_grads, cur_grads), None


zero = jax.tree.map(jnp.zeros_like, weights.to_dict_values())
grads, _ = brainstate.transform.scan(step_fn, zero, inputs)

assert algo_vmapped(inputs[0]).shape == (batch_size, 5)

brainstate.nn.init_all_states(
    model, batch_size=batch_size
)  # the same model with a batch axis, by BPTT
expected = bptt(model, lambda x: jnp.sum(model(x) ** 2), inputs)
assert close(grads, expected)
