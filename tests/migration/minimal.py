"""Minimal models, their online gradient and the gradients to compare it with.

A step is `(p, h, x, ops, old, mix) -> (h, out)`, written in the operators that both packages have.
The marks `old` and `mix` change no value: the first stands around an old state, the second around
everything, on its way into an operation that mixes neurons.
"""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import brainstate
import jax
import jax.numpy as jnp
import numpy as np

import braintrace

I, N, O, T, B = 3, 4, 2, 4, 2
LEAK = 0.8
stopped = jax.lax.stop_gradient
CHANNELS_LAST = ("NWC", "WIO", "NWC")


def keep(value: Any) -> Any:
    return value


def _plain_conv(x: Any, kernel: Any, bias: Any = 0.0, **options: Any) -> Any:
    return jax.lax.conv_general_dilated(x, kernel, (1,), "SAME", **options) + bias


#: The operators of both packages, in JAX alone.
PLAIN = SimpleNamespace(
    matmul=lambda x, w, b=0.0: x @ w + b, element_wise=lambda w: w, conv=_plain_conv
)


class Given(NamedTuple):
    params: Mapping[str, jax.Array]
    carry: Mapping[str, jax.Array]
    xs: jax.Array
    ys: jax.Array


def drawn(*shape: int, seed: int = 0, scale: float = 0.6) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng([seed, *shape]).standard_normal(shape))


@jax.custom_jvp
def spike(v: Any) -> Any:
    """1 above 0, with a surrogate derivative."""
    return (v > 0).astype(v.dtype)


@spike.defjvp
def _(primals: Any, tangents: Any) -> Any:
    (v,), (dv,) = primals, tangents
    return spike(v), dv * surrogate(v)


def surrogate(v: Any) -> Any:
    return 1 / jnp.square(1 + 2 * jnp.abs(v))


class Minimal(brainstate.nn.Module):
    """The brainstate model of a step."""

    def __init__(self, step: Callable, params: Mapping, carry: Mapping):
        super().__init__()
        self.step, self.start, self.names = step, dict(carry), tuple(params)
        for name, value in params.items():
            setattr(self, name, brainstate.ParamState(value))
        for name, value in carry.items():
            setattr(self, name, brainstate.HiddenState(value))

    def init_state(self, *args: Any, **kwargs: Any) -> None:
        for name, value in self.start.items():
            getattr(self, name).value = value

    reset_state = init_state

    def update(self, x: Any) -> Any:
        params, carry = (
            {k: getattr(self, k).value for k in names} for names in (self.names, self.start)
        )
        new, out = self.step(params, carry, x, braintrace)
        for name, value in new.items():
            getattr(self, name).value = value
        return out

    def weights(self) -> Any:
        return self.states(brainstate.ParamState)


def squares(out: Any, target: Any) -> Any:
    return jnp.sum(jnp.square(out - target))


def learner_of(step: Callable, given: Given, algorithm: str, **options: Any) -> tuple[Any, Minimal]:
    """A learner at its start, and its model."""
    model = Minimal(step, given.params, given.carry)
    learner = braintrace.compile(model, getattr(braintrace, algorithm), given.xs[0], **options)
    model.init_state()
    learner.reset_state()
    return learner, model


def named(gradients: Mapping) -> dict[str, Any]:
    return {path[-1]: value for path, value in gradients.items()}


def step_by_step(learner: Any, model: Minimal, given: Given, silent: int = 0) -> dict[str, Any]:
    """The sum of the gradients of single steps; those of the first few are not asked for."""
    gradient = brainstate.transform.grad(lambda x, y: squares(learner(x), y), model.weights())
    if silent:
        brainstate.transform.for_loop(lambda x: learner(x), given.xs[:silent])
    every = brainstate.transform.for_loop(gradient, given.xs[silent:], given.ys[silent:])
    return named(jax.tree.map(lambda v: v.sum(0), every))


def in_windows(learner: Any, model: Minimal, given: Given) -> dict[str, Any]:
    """The gradient of one window, in the form of the PyPI package."""
    window = braintrace.MultiStepData(given.xs)
    return named(
        brainstate.transform.grad(lambda: squares(learner(window), given.ys), model.weights())()
    )


def through(step: Callable) -> Callable[[Given], dict[str, Any]]:
    """Backpropagation through time, of a step in plain JAX."""

    def gradient(given: Given) -> dict[str, Any]:
        def total(params: Mapping) -> Any:
            run = lambda h, x: step(params, h, x, PLAIN)
            return squares(jax.lax.scan(run, given.carry, given.xs)[1], given.ys)

        return jax.grad(total)(dict(given.params))

    return gradient


def oracle(step: Callable) -> Callable[[Given], dict[str, Any]]:
    """The gradient of D-RTRL: each neuron's own path in the carry, the whole step in the output."""

    def twice(p: Any, h: Any, x: Any, ops: Any) -> Any:
        own, _ = step(p, h, x, ops, old=stopped, mix=stopped)
        return own, step(p, h, x, ops, old=stopped)[1]

    return through(twice)


def zero(given: Given) -> dict[str, Any]:
    return {name: jnp.zeros_like(value) for name, value in given.params.items()}


def times(factor: float, right: Callable) -> Callable[[Given], dict[str, Any]]:
    return lambda given: {name: factor * value for name, value in right(given).items()}


def distance(found: Any, expected: Any) -> float:
    """Relative, in the norm; of the size of what is found where nothing is expected."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    return float(np.linalg.norm(found - expected) / (np.linalg.norm(expected) or 1.0))


def sizes(names: Sequence[str], *shape: int) -> dict[str, tuple[int, ...]]:
    return dict.fromkeys(names, shape)
