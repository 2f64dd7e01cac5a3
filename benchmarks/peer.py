"""The peer's algorithms, the PyPI package braintrace, as programs over the very same cells.

The cell is the same function; its weights are objects for which `x @ w` is the peer's traced product. The peer traces no slice
of a product, so the weights of gated cells are one matrix for each gate, and the products are joined again.
"""

from typing import Any

import brainstate
import jax
import jax.numpy as jnp

import braintrace

from .work import Case, Program, data_of, loss, model_of, size_of

_GATES = {"gru": 3, "lstm": 4}


class Product:
    """A weight that multiplies from the right through the peer's operation, gate by gate."""

    def __init__(self, parts: list[Any]):
        self.parts = parts

    def __rmatmul__(self, x: Any) -> Any:
        found = [braintrace.matmul(x, w.value) for w in self.parts]
        return found[0] if len(found) == 1 else jnp.concatenate(found, -1)


class Network(brainstate.nn.Module):
    """A cell of `braintrace._compare` on brainstate's states."""

    def __init__(self, case: Case):
        super().__init__()
        self.source = model_of(case)
        self.weights = {k: _parts(v, _GATES.get(case.cell, 1) if k != "o" else 1) for k, v in self.source.params.items()}
        # Each state is an attribute of its own: in a list, the peer does not see that they belong together.
        for k, value in enumerate(jax.tree.leaves(self.source.carry)):
            setattr(self, f"hidden{k}", brainstate.HiddenState(value))

    @property
    def hidden(self) -> list[Any]:
        return [getattr(self, f"hidden{k}") for k in range(len(jax.tree.leaves(self.source.carry)))]

    def init_state(self, *_: Any, **__: Any) -> None:
        for state, value in zip(self.hidden, jax.tree.leaves(self.source.carry), strict=True):
            state.value = value

    def update(self, x: Any) -> Any:
        params = {
            k: Product(parts) if parts[0].value.ndim == 2 else jnp.concatenate([p.value for p in parts])
            for k, parts in self.weights.items()
        }
        carry = jax.tree.unflatten(jax.tree.structure(self.source.carry), [s.value for s in self.hidden])
        carry, out = self.source.cell(params, carry, x)
        for state, value in zip(self.hidden, jax.tree.leaves(carry), strict=True):
            state.value = value
        return out


def _parts(value: Any, count: int) -> list[Any]:
    return [brainstate.ParamState(v) for v in jnp.split(value, count, axis=-1)]


def program(case: Case, rule: str, steps: int, form: str) -> Program:
    """The gradient of `steps` steps.

    `form` is 'online' (the peer's single-step mode), 'window 20' and 'window 1' (its multi-step mode), 'step' or 'eager step'.
    """
    network, (xs, ys) = Network(case), data_of(case, steps)
    leak = network.source.leak
    name, options = {
        "d_rtrl": ("D_RTRL", {}),
        "pp_prop": ("pp_prop", {"decay_or_rank": leak}),
        "eprop": ("EProp", {"kappa_filter_decay": 0.5}),
        "ostl_recurrent": ("OSTLRecurrent", {}),
        "ottt": ("OTTT", {"leak": leak}),
        "otpe": ("OTPE", {"leak": leak}),
        "otpe (approx)": ("OTPE", {"leak": leak, "mode": "approx"}),
        # One matrix: this rule puts all layers into one group there.
        "osttp": ("OSTTP", {"B_list": [jnp.ones((ys.shape[-1], case.neurons)) / case.neurons]}),
    }[rule]
    length = int(form.split()[1]) if form.startswith("window") else None
    if length is not None:
        options["vjp_method"] = "multi-step"
    learner: Any = braintrace.compile(network, getattr(braintrace, name), xs[0], batch_size=case.lanes, **options)
    weights = network.states(brainstate.ParamState)

    def step_loss(x: Any, y: Any) -> Any:
        if length == 1:
            return loss(learner(braintrace.MultiStepData(x[None]))[0], y)
        if length is not None:
            return jax.vmap(loss)(learner(braintrace.MultiStepData(x)), y)
        return loss(learner.update(x, y_target=y) if rule == "osttp" else learner(x), y)

    def sequence(xs: Any, ys: Any) -> Any:
        if not hasattr(learner, "etrace_grad"):
            return _accumulated(step_loss, weights, xs, ys)
        chunk = {} if length in (None, 1) else {"chunk_size": length}
        return learner.etrace_grad(xs, ys, step_fn=step_loss, reduction="sum", **chunk)

    def one(x: Any, y: Any) -> Any:
        return brainstate.transform.grad(lambda: step_loss(x, y), weights)()

    if form == "eager step":
        return Program(lambda fixed, state, x, y: (one(x, y), state), (), (), xs[0], ys[0], compiled=False)
    if form == "step":
        xs, ys = xs[0], ys[0]
    run = brainstate.transform.StatefulFunction(one if form == "step" else sequence)
    run.make_jaxpr(xs, ys)
    states = run.get_states(xs, ys)
    traces = [s.value for s in states if not isinstance(s, (brainstate.ParamState, brainstate.HiddenState))]

    def function(fixed: Any, state: Any, xs: Any, ys: Any) -> Any:
        new, gradients = run.jaxpr_call(state, xs, ys)
        return gradients, [old if value is None else value for old, value in zip(state, new, strict=True)]

    return Program(function, (), [s.value for s in states], xs, ys, size_of(traces), _names)


def _accumulated(step_loss: Any, weights: Any, xs: Any, ys: Any) -> Any:
    """For versions without a sequence driver: the online gradients, added up in a scan."""
    gradient = brainstate.transform.grad(step_loss, weights)

    def one(total: Any, at: Any) -> Any:
        return jax.tree.map(jnp.add, total, gradient(*at)), None

    zero = {k: jnp.zeros_like(s.value) for k, s in weights.items()}
    return brainstate.transform.scan(one, zero, (xs, ys))[0]


def _names(gradients: Any) -> dict[str, Any]:
    """The gates joined again."""
    names = dict.fromkeys(path[-2] for path in gradients)
    return {n: jnp.concatenate([gradients[p] for p in sorted(gradients) if p[-2] == n], -1) for n in names}


def warm_up() -> None:
    """Load what the first program of a process would have to wait for."""
    tiny = program(Case("rnn", 2, 2), "d_rtrl", 2, "online")
    jax.block_until_ready(jax.jit(tiny.function)(tiny.fixed, tiny.state, tiny.xs, tiny.ys))
