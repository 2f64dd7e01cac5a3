"""One small learner for each front end, driven in one way: a recurrent layer of N neurons with O
outputs, B samples, I inputs, and sequences of T steps.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import braintrace

T, B, I, N, O = 5, 2, 3, 4, 6
_random = np.random.default_rng(0)
X = jnp.asarray(_random.normal(size=(T, B, I)), jnp.float32)
Y = jnp.asarray(_random.normal(size=(T, B, O)), jnp.float32)
_SHAPES = {"w": (I, N), "u": (N, N), "o": (N, O)}
PARAMS = {k: jnp.asarray(_random.normal(size=v) / 2, jnp.float32) for k, v in _SHAPES.items()}
CARRY = jnp.zeros((B, N), jnp.float32)


def squared_error(out, y):
    """A loss for each sample."""
    return ((out - y) ** 2).mean(-1)


def cell(params, h, x):
    h = jnp.tanh(0.5 * h + x @ params["w"] + h @ params["u"])
    return h, h @ params["o"]


class _Equinox(eqx.Module):
    w: jax.Array
    u: jax.Array
    o: jax.Array

    def __call__(self, x, h):
        return cell({"w": self.w, "u": self.u, "o": self.o}, h, x)


class _NNX(nnx.Module):
    def __init__(self):
        self.w, self.u, self.o = (nnx.Param(v) for v in PARAMS.values())

    def __call__(self, h, x):
        return cell({k: getattr(self, k)[...] for k in PARAMS}, h, x)


class _Brainstate(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.w, self.u, self.o = (brainstate.ParamState(v) for v in PARAMS.values())

    def init_state(self, batch_size=None, **_):
        shape = (N,) if batch_size is None else (batch_size, N)
        self.h = brainstate.HiddenState(jnp.zeros(shape, jnp.float32))

    def update(self, x):
        params = {k: getattr(self, k).value for k in PARAMS}
        self.h.value, out = cell(params, self.h.value, x)
        return out


class _Descent:
    """An optimiser of a brainstate model."""

    def __init__(self, states):
        self.states = states

    def update(self, gradients):
        for key, gradient in gradients.items():
            self.states[key].value = self.states[key].value - 0.1 * gradient


class FrontEnd:
    """`compile` and the methods of its learner, with valid arguments but for those given."""

    name: str
    methods: tuple[str, ...]
    compiled: Mapping[str, Any] = {}

    def model(self) -> Any:
        raise NotImplementedError

    def watched(self) -> Any:
        """Everything that a call must leave as it is when it fails."""
        raise NotImplementedError

    def values(self, model: Any) -> Any:
        """The arrays of a model."""
        return jax.tree.leaves(self.compiled)

    def begin(self) -> None:
        """A learner that holds its state starts again, with the first parameters."""

    def compile(self, algorithm: Any = "d_rtrl", *inputs: Any, **options: Any) -> Any:
        chosen = {**self.compiled, **options}
        left = {k: v for k, v in chosen.items() if v is not LEFT_OUT}
        return braintrace.compile(self.model(), algorithm, *(inputs or (X[0],)), **left)

    @functools.cached_property
    def learner(self) -> Any:
        return self.compile()

    @functools.cached_property
    def taking(self) -> "dict[str, FrontEnd]":
        """The same with algorithms that take signals, by their arguments."""
        targets, modulators = type(self)(), type(self)()
        targets.learner = targets.compile("osttp", feedback_key=0)
        modulators.learner = modulators.compile("three_factor")
        return {"y_target": targets, "modulator": modulators}

    def call(self, method: str, **given: Any) -> Any:
        """`learner.<method>` with the arguments given in place of the valid ones."""
        raise NotImplementedError


LEFT_OUT = object()


def _takes(function: Any, count: int) -> bool:
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    return True


def _named(given: dict[str, Any], *names: str) -> list[Any]:
    defaults = {"xs": X, "ys": Y, "x": X[0]}
    return [given.pop(n, defaults.get(n)) for n in names]


class Function(FrontEnd):
    name = "function"
    methods = (
        "etrace_grad",
        "etrace_fit",
        "etrace_fit, every step",
        "check_gradients",
        "etrace_evolve",
        "update",
        "update_window",
        "value_and_grad",
        "memory_plan",
        "init",
    )

    def __init__(self):
        self.compiled = {"params": self.params, "carry": CARRY}

    params: Any = PARAMS

    def model(self):
        return cell

    @functools.cached_property
    def state(self):
        return self.learner.init(self.params, CARRY)

    def watched(self):
        return self.params, self.state

    def call(self, method: str, **given: Any) -> Any:
        found = getattr(self.learner, method)
        params, state = given.pop("params", self.params), given.pop("state", self.state)
        if method == "memory_plan":
            return found(given.pop("T", T), **given)
        if method == "init":
            return found(params, given.pop("carry", CARRY), **given)
        if method == "update":
            return found(params, state, *_named(given, "x"), **given)
        if method in ("etrace_evolve", "update_window"):
            return found(params, state, *_named(given, "xs"), **given)
        if "step_fn" not in given:
            given.setdefault("loss_fn", squared_error)
        if method == "value_and_grad":
            return found(params, state, given.pop("x", X[0]), given.pop("y", Y[0]), **given)
        if method == "etrace_fit":
            tuner = given.setdefault("optimizer", optax.sgd(0.1))
            start = params, tuner.init(self.learner.trained(params)), state
            return found(*start, *_named(given, "xs", "ys"), **given)
        return found(params, state, *_named(given, "xs", "ys"), **given)


class Equinox(Function):
    name = "equinox"
    params = _Equinox(**PARAMS)

    def __init__(self):
        self.compiled = {"carry": CARRY}

    def model(self):
        return self.params


class NNX(FrontEnd):
    name = "nnx"
    methods = (
        "etrace_grad",
        "etrace_fit",
        "etrace_fit, every step",
        "check_gradients",
        "etrace_evolve",
        "__call__",
        "value_and_grad",
        "memory_plan",
        "reset_state",
    )
    compiled = {"carry": CARRY}  # noqa: RUF012

    def model(self):
        return _NNX()

    def values(self, model):
        return nnx.state(model)

    @functools.cached_property
    def first(self):
        return jax.tree.map(jnp.copy, nnx.state(self.learner))

    def begin(self):
        nnx.update(self.learner, self.first)

    def watched(self):
        return nnx.state(self.learner)

    def call(self, method: str, **given: Any) -> Any:
        found = getattr(self.learner, method)
        if method == "memory_plan":
            return found(given.pop("T", T), **given)
        if method == "reset_state":
            return found(**given)
        if method == "__call__":
            return found(*_named(given, "x"), **given)
        if method == "etrace_evolve":
            return found(*_named(given, "xs"), **given)
        if "step_fn" not in given:
            given.setdefault("loss_fn", squared_error)
        if method == "value_and_grad":
            x, y = given.pop("x", X[0]), given.pop("y", Y[0])
            return found(x, y, **given)
        if method == "etrace_fit":
            model = self.learner.model
            given.setdefault("optimizer", nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param))
        return found(*_named(given, "xs", "ys"), **given)


class Brainstate(FrontEnd):
    name = "brainstate"
    methods = (
        "etrace_grad",
        "etrace_fit",
        "etrace_fit, every step",
        "check_gradients",
        "etrace_evolve",
        "update",
        "value_and_grad",
        "memory_plan",
        "reset_state",
    )
    compiled = {"batch_size": B}  # noqa: RUF012

    def model(self):
        return _Brainstate()

    def values(self, model):
        return [s.value for s in model.states().values()]

    @functools.cached_property
    def first(self):
        return [(s, s.value) for s in self.states()]

    def states(self):
        return self.learner.states().values()

    def begin(self):
        for state, value in self.first:
            state.value = value

    def watched(self):
        return [s.value for s in self.states()]

    def call(self, method: str, **given: Any) -> Any:
        this = self.learner
        found = getattr(this, method)
        if method == "memory_plan":
            return found(given.pop("T", T), **given)
        if method == "reset_state":
            return found(**given)
        if method == "update":
            return found(*_named(given, "x"), **given)
        if method == "etrace_evolve":
            given.setdefault("return_outputs", True)
            return found(*_named(given, "xs"), **given)
        loss_fn: Callable[..., Any] = given.pop("loss_fn", squared_error)
        step = lambda x, *target: loss_fn(this(x), *target)
        given.setdefault("step_fn", step if _takes(loss_fn, 2) else loss_fn)
        if method == "value_and_grad":
            return found(given.pop("x", X[0]), given.pop("y", Y[0]), **given)
        if method == "etrace_fit":
            given.setdefault("optimizer", _Descent(this.param_states))
        return found(*_named(given, "xs", "ys"), **given)


class Mapped(Brainstate):
    """Its methods are those of the learner that is mapped: a few are enough."""

    name = "brainstate, mapped"
    methods = ("etrace_grad", "update", "reset_state")
    compiled = {"batch_size": B, "vmap": True}  # noqa: RUF012

    def states(self):
        return self.learner.module.states().values()


FRONT_ENDS = (Function(), Equinox(), NNX(), Brainstate(), Mapped())
