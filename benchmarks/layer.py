"""A layer of one weight and one state, written for one sample, as a user of either package maps it
over a batch: `vmap_new_states` around `compile_graph`, `brainstate.nn.Vmap` around the learner.
"""

from typing import Any

import brainstate
import jax
import jax.numpy as jnp

import braintrace

from .network import functional
from .work import Case, Program, data_of, size_of

FEEDING = {100: 300, 300: 500, 8: 4}  # inputs, by neurons: weights of 400 x 100 and 800 x 300


class Layer(brainstate.nn.Module):
    """`h <- 0.9 h + tanh([x, h] W + b)`."""

    def __init__(self, inputs: int, neurons: int):
        super().__init__()
        self.neurons = neurons
        self.weight = braintrace.nn.Linear(inputs + neurons, neurons)

    def init_state(self, batch_size: int | None = None, **_: Any) -> None:
        lead = () if batch_size is None else (batch_size,)
        self.h = brainstate.HiddenState(jnp.zeros((*lead, self.neurons)))

    def update(self, x: Any) -> Any:
        drive = self.weight(jnp.concatenate([x, self.h.value], -1))
        self.h.value = 0.9 * self.h.value + jnp.tanh(drive)
        return self.h.value


def program(case: Case, rule: str, steps: int, form: str) -> Program:
    """The gradients of D-RTRL, one step after another, added up in a scan. `form` is 'mapped' or
    'batch_size'.
    """
    brainstate.random.seed(0)
    inputs = FEEDING[case.neurons]
    model, (xs, _) = Layer(inputs, case.neurons), data_of(case, steps, inputs)
    make = {"d_rtrl": braintrace.D_RTRL}[rule]
    learner: Any = None
    if form == "mapped":
        learner = make(model)

        @brainstate.transform.vmap_new_states(state_tag="new", axis_size=case.samples)
        def initialise() -> None:
            brainstate.nn.init_all_states(model)
            learner.compile_graph(xs[0, 0])

        initialise()
        call = brainstate.nn.Vmap(learner, vmap_states="new")
    else:
        call = braintrace.compile(model, make, xs[0], batch_size=case.samples)
    weights = model.states(brainstate.ParamState)

    def sequence(xs: Any, ys: Any) -> Any:
        def one(total: Any, x: Any) -> Any:
            found = brainstate.transform.grad(lambda: jnp.sum(call(x) ** 2), weights)()
            return jax.tree.map(jnp.add, total, found), None

        zero = {path: jax.tree.map(jnp.zeros_like, s.value) for path, s in weights.items()}
        return brainstate.transform.scan(one, zero, xs)[0]

    function, states = functional(sequence, xs, ())
    models_own = (brainstate.ParamState, brainstate.HiddenState)
    traces = [s.value for s in states if not isinstance(s, models_own)]
    names = lambda found: {str(path): jax.tree.leaves(value)[0] for path, value in found.items()}
    return Program(function, (), [s.value for s in states], xs, (), size_of(traces), names)
