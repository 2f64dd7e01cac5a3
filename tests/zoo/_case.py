"""What a case of the zoo is, and how one marked step gives both the cell and its oracle.

A step is `(params, carry, x, old, mix) -> (carry, out)`, plain JAX with two hand-placed marks:

* `mix(v)` stands around the whole data operand of a mixing equation (a product, a convolution, a
  roll, a reduction over neurons, the statistics of a layer norm);
* `old(h)` stands around an old state on its way into one.

A mark never changes a value. Without marks (both are `keep`, the default) the step is the cell.
The oracle evaluates it twice from the same carry, and the marks stop gradients:

    carry evaluation  old = mix = stop_gradient        gives the next carry: positional paths only
    live evaluation   old = stop_gradient, mix = keep  gives the output: what this step makes counts

A parameter whose every way into the carry runs through `mix` has no site: it acts in the live
evaluation only. The gradient of a scan of the oracle is the D-RTRL gradient of the cell.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

EXACT, APPROXIMATE, INSTANTANEOUS = "exact", "approximate", "instantaneous"

#: Sizes that most cases share: inputs, neurons, outputs.
IN, N, OUT = 3, 4, 2

CASES: dict[str, "Case"] = {}


@dataclass(frozen=True)
class Case:
    """A one-step cell, its oracle, example data and what D-RTRL is to each parameter."""

    name: str
    cell: Callable  # (params: dict, carry, x) -> (carry, out); the batch on axis 0
    oracle: Callable  # same signature, same values; BPTT through it is the D-RTRL gradient
    make: Callable  # (key, T, B) -> params, carry0, xs (T, B, ...), targets (T, B, OUT)
    certificate: Mapping[str, str]  # 'exact' | 'approximate' | 'instantaneous' per parameter
    features: frozenset[str]
    B: int = 2  # samples, where the case is about their number
    compiled: Mapping[str, Any] = field(default_factory=dict)  # what `compile` is told beside
    axes: Any = 0  # batch axes: one number, or a pair of trees for (carry, x)
    twin: Callable | None = None  # the same cell written otherwise: every rule gives it the same

    @property
    def apart(self):
        """Whether the case has samples, and each is computed alone."""
        return not self.features & {"meeting", "unbatched", "shared-carry"}

    @property
    def restarts(self):
        """Whether a reset of one sample begins a new sequence: a key runs on, and a context that
        all samples share does not move with one of them.
        """
        return self.apart and not self.features & {"key", "shared-context"}


def keep(value):
    """A mark that does nothing."""
    return value


def two_evaluations(step):
    """The oracle of a marked step."""

    def oracle(params, carry, x):
        new_carry, _ = step(params, carry, x, old=lax.stop_gradient, mix=lax.stop_gradient)
        _, out = step(params, carry, x, old=lax.stop_gradient, mix=keep)
        return new_carry, out

    return oracle


def case(
    make, *, exact="", approximate="", instantaneous="", features="", cell=None, name="", **more
):
    """Register the decorated marked step; `cell`, if given, is the same step written otherwise."""

    def register(step):
        kinds = {EXACT: exact, APPROXIMATE: approximate, INSTANTANEOUS: instantaneous}
        certificate = {name: kind for kind, names in kinds.items() for name in names.split()}
        called = name or step.__name__
        if called in CASES:
            raise ValueError(f"two cases are called {called!r}")
        CASES[called] = Case(
            called,
            cell or step,
            two_evaluations(step),
            make,
            certificate,
            frozenset(features.split()),
            **more,
        )
        return step

    return register


def is_shape(node):
    """A tuple of integers, as opposed to a tuple of shapes."""
    return isinstance(node, tuple) and all(isinstance(size, int) for size in node)


def generator(key, stream=0):
    """A NumPy generator for a key: drawing compiles nothing."""
    return np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), stream])


def draw(rng, shapes, scale):
    """A pytree of normal numbers, of the default dtype, for a pytree of shapes."""
    return jax.tree.map(
        lambda shape: jnp.asarray(scale * rng.standard_normal(shape)), shapes, is_leaf=is_shape
    )


def shapes(carry, x=(IN,), scale=0.6, **params):
    """A `make` that draws everything: the carry and x without, the params with all their axes."""

    def make(key, T, B):
        rng = generator(key)
        carry0 = draw(rng, jax.tree.map(lambda s: (B, *s), carry, is_leaf=is_shape), 0.6)
        xs, targets = draw(rng, ((T, B, *x), (T, B, OUT)), 1.0)
        return draw(rng, params, scale), carry0, xs, targets

    return make


@jax.custom_jvp
def spike(v):
    """1 where v > 0, else 0; the surrogate derivative is 1 / (1 + 2|v|)^2."""
    return (v > 0).astype(v.dtype)


@spike.defjvp
def _(primals, tangents):
    (v,), (dv,) = primals, tangents
    return spike(v), dv / jnp.square(1 + 2 * jnp.abs(v))
