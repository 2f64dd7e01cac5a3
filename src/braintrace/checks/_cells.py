"""Small cells in plain JAX that laws are checked on."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ..cell import Timed, sequence_length
from ..core._errors import UsageError

_INPUTS, _NEURONS, _OUTPUTS, _SAMPLES, _STEPS = 2, 3, 2, 2, 6

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class CellExample:
    """A cell with values for all that it takes, which `check_rule` checks a rule on.

    Attributes:
        cell: `(params, carry, x) -> (carry, out)`; out has the samples on axis 0.
        params: the parameters.
        carry: the carry before the first step.
        xs: the inputs of at least 4 steps: time on axis 0, the samples on axis 1.
        options: further arguments of `braintrace.compile`, `batch_size` say.

    >>> import jax.numpy as jnp
    >>> from braintrace import checks
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> given = jnp.ones((2, 3)), jnp.zeros((2, 3)), jnp.ones((4, 2, 2))
    >>> checks.CellExample(cell, *given).steps
    4
    """

    cell: Callable[..., PyTree]
    params: PyTree
    carry: PyTree
    xs: Timed
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 4:
            raise UsageError(
                "The sequence of the example is too short.",
                got=f"{self.steps} steps",
                expected="at least 4, so that windows differ and a reset has a past",
            )

    @property
    def steps(self) -> int:
        """The length of the sequence."""
        return sequence_length(self.xs)


@jax.custom_jvp
def _spike(v: Array) -> Array:
    return (v > 0).astype(v.dtype)


_spike.defjvp(
    lambda primals, tangents: (_spike(*primals), tangents[0] / (1 + 4 * jnp.abs(primals[0])) ** 2)
)


def _leaky(p: PyTree, h: Array, x: Array) -> tuple[Array, Array]:
    h = 0.8 * h + x @ p["w"] + p["b"]
    return h, h @ p["o"]


def _recurrent(p: PyTree, h: Array, x: Array) -> tuple[Array, Array]:
    h = jax.nn.sigmoid(p["tau"]) * h + jnp.tanh(x @ p["w"] + h @ p["u"])
    return h, h @ p["o"]


def _lif(p: PyTree, v: Array, x: Array) -> tuple[Array, Array]:
    z = _spike(v - 0.3)
    v = 0.8 * (v - 0.3 * stop(z)) + x @ p["w"] + z @ p["u"]
    return v, _spike(v - 0.3) @ p["o"]


def _alif(p: PyTree, carry: tuple[Array, ...], x: Array) -> tuple[tuple[Array, ...], Array]:
    v, a, y = carry
    z = _spike(v - 0.3 - 0.2 * a)
    v = 0.8 * v - 0.3 * z + x @ p["w"] + z @ p["u"]
    a = 0.9 * a + z
    y = 0.7 * y + _spike(v - 0.3 - 0.2 * a) @ p["o"]
    return (v, a, y), y


def _gru(p: PyTree, h: Array, x: Array) -> tuple[Array, Array]:
    of_x, of_h = jnp.split(x @ p["w"], 3, axis=-1), jnp.split(h @ p["u"], 3, axis=-1)
    r, z = (jax.nn.sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2], strict=True))
    h = z * h + (1 - z) * jnp.tanh(of_x[2] + r * of_h[2])
    return h, h @ p["o"]


def _two_layers(p: PyTree, carry: tuple[Array, Array], x: Array) -> PyTree:
    below, above = carry
    below = 0.8 * below + x @ p["w"]
    above = 0.6 * above + jnp.tanh(below @ p["v"] + above @ p["u"])
    return (below, above), above @ p["o"]


def _lru(p: PyTree, h: Array, x: Array) -> tuple[Array, Array]:
    decay = jnp.exp(jax.lax.complex(-jnp.exp(p["log"]), p["phase"]))
    h = decay * h + x @ jax.lax.complex(p["re"], p["im"])
    return h, h.real @ p["o"]


_I, _N, _O = _INPUTS, _NEURONS, _OUTPUTS
_IN, _REC, _OUT = (_I, _N), (_N, _N), (_N, _O)
#: cell, shapes of its parameters, shapes of its carry of one sample; whether that is complex
_CELLS: dict[str, tuple[Callable[..., PyTree], dict[str, tuple[int, ...]], PyTree, bool]] = {
    "leaky": (_leaky, {"w": _IN, "b": (_N,), "o": _OUT}, (_N,), False),
    "recurrent": (_recurrent, {"w": _IN, "u": _REC, "tau": (_N,), "o": _OUT}, (_N,), False),
    "lif": (_lif, {"w": _IN, "u": _REC, "o": _OUT}, (_N,), False),
    "alif": (_alif, {"w": _IN, "u": _REC, "o": _OUT}, ((_N,), (_N,), (_O,)), False),
    "gru": (_gru, {"w": (_I, 3 * _N), "u": (_N, 3 * _N), "o": _OUT}, (_N,), False),
    "two layers": (_two_layers, {"w": _IN, "v": _REC, "u": _REC, "o": _OUT}, ((_N,), (_N,)), False),
    "lru": (_lru, {"log": (_N,), "phase": (_N,), "re": _IN, "im": _IN, "o": _OUT}, (_N,), True),
}


def default_cells() -> dict[str, CellExample]:
    """A few small cells, of all kinds that rules treat apart: a leaky layer, a recurrent one with
    leaks that are learned, spiking neurons without and with adaptation, a gated unit, two layers,
    complex states. In float64 where JAX computes in it.

    >>> from braintrace import checks
    >>> list(checks.default_cells())
    ['leaky', 'recurrent', 'lif', 'alif', 'gru', 'two layers', 'lru']
    """
    return {name: _example(name) for name in _CELLS}


def _example(name: str) -> CellExample:
    cell, shapes, carry, is_complex = _CELLS[name]
    random = np.random.default_rng(len(name))
    draw = lambda scale, *shape: scale * random.standard_normal(shape)
    params = {k: jnp.asarray(draw(0.8, *shape)) for k, shape in shapes.items()}
    is_shape = lambda v: isinstance(v, tuple) and all(isinstance(n, int) for n in v)

    def state(shape: tuple[int, ...]) -> Array:
        real, imaginary = draw(0.3, _SAMPLES, *shape), draw(0.3, _SAMPLES, *shape)
        return jnp.asarray(real + 1j * imaginary if is_complex else real)

    start = jax.tree.map(state, carry, is_leaf=is_shape)
    return CellExample(cell, params, start, jnp.asarray(draw(1.2, _STEPS, _SAMPLES, _INPUTS)))
