"""The peer's algorithms, the PyPI package braintrace, as programs over the very same cells.

The cell is the same function; its weights are objects for which `x @ w` is the peer's traced
product. The peer traces no slice of a product, so the weights of gated cells are one matrix for
each gate, and the products are joined again.
"""

from typing import Any

import brainstate
import jax
import jax.numpy as jnp

import braintrace

from . import layer
from .network import Network, functional, joined
from .work import Case, Program, data_of, loss, size_of


class Product:
    """A weight that multiplies from the right through the peer's operation, gate by gate."""

    def __init__(self, parts: list[Any]):
        self.parts = parts

    def __rmatmul__(self, x: Any) -> Any:
        found = [braintrace.matmul(x, w) for w in self.parts]
        return found[0] if len(found) == 1 else jnp.concatenate(found, -1)


def program(case: Case, rule: str, steps: int, form: str) -> Program:
    """The gradient of `steps` steps.

    `form` is 'online' (the peer's single-step mode), 'window 20' and 'window 1' (its multi-step
    mode), 'step' or 'eager step'.
    """
    if case.cell == "layer":
        return layer.program(case, rule, steps, form)
    network, (xs, ys) = Network(case, Product, split=True), data_of(case, steps)
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
    learner: Any = braintrace.compile(
        network, getattr(braintrace, name), xs[0], batch_size=case.samples, **options
    )
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
        return Program(
            lambda fixed, state, x, y: (one(x, y), state), (), (), xs[0], ys[0], compiled=False
        )
    if form == "step":
        xs, ys = xs[0], ys[0]
    function, states = functional(one if form == "step" else sequence, xs, ys)
    traces = [
        s.value
        for s in states
        if not isinstance(s, (brainstate.ParamState, brainstate.HiddenState))
    ]
    return Program(function, (), [s.value for s in states], xs, ys, size_of(traces), joined)


def _accumulated(step_loss: Any, weights: Any, xs: Any, ys: Any) -> Any:
    """For versions without a sequence driver: the online gradients, added up in a scan."""
    gradient = brainstate.transform.grad(step_loss, weights)

    def one(total: Any, at: Any) -> Any:
        return jax.tree.map(jnp.add, total, gradient(*at)), None

    zero = {k: jnp.zeros_like(s.value) for k, s in weights.items()}
    return brainstate.transform.scan(one, zero, (xs, ys))[0]


def warm_up() -> None:
    """Load what the first program of a process would have to wait for."""
    tiny = program(Case("rnn", 2, 2), "d_rtrl", 2, "online")
    jax.block_until_ready(jax.jit(tiny.function)(tiny.fixed, tiny.state, tiny.xs, tiny.ys))
