"""A random cell: one to three layers of neurons, each with one to three states."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import sigmoid

from zoo._case import OUT, Case, keep, two_evaluations

from ._layouts import layout
from ._terms import Parameters, activity, drive, expression

T, IN = 6, 3


@dataclasses.dataclass(frozen=True)
class Layer:
    """`step(p, leaves, x, below, marks)` -> (new leaves, new activity)."""

    step: Callable[..., Any]
    neurons: int
    pack: Callable[..., Any]
    states: int


@dataclasses.dataclass(frozen=True)
class Marks:
    """What stands around old states, data on the way into a mixing, and states of the same neuron
    that another of its states reads.
    """

    old: Callable[..., Any] = keep
    mix: Callable[..., Any] = keep
    cross: Callable[..., Any] = keep


def layer_of(rng, parameters, under):
    """A random layer above `under` neurons (none: 0)."""
    n, count = int(rng.integers(2, 5)), int(rng.integers(1, 4))
    names = [f"s{k}" for k in range(count)]
    pack, unpack = layout(rng, count)
    show = activity(rng, parameters, names, n)
    own = ["recurrent", "rolled", "total"]
    kinds = [*rng.choice(own, size=int(rng.integers(0, 3)), replace=False)]
    if under:
        kinds.append("joined" if rng.random() < 0.3 else "below")
    if not under or rng.random() < 0.2:
        kinds.append("encoded" if rng.random() < 0.2 else "input")
    drives = [drive(rng, parameters, kind, n, (IN, under), show) for kind in kinds]
    rates = [parameters.vector(n) for _ in names]
    depths = rng.integers(1, 3, size=count)
    moves = [expression(rng, parameters, [*names, "y"], n, int(depth)) for depth in depths]
    gains = [parameters.vector(n) for _ in names]
    substeps = 2 if rng.random() < 0.2 else 1
    branch = rng.random() < 0.2

    def one(p, env, marks):
        """Every state in turn; later ones see the new values of earlier ones."""
        env = dict(env)
        for name, rate, move, gain in zip(names, rates, moves, gains, strict=True):
            seen = {k: v if k in (name, "y") else marks.cross(v) for k, v in env.items()}
            change = jnp.tanh(move(p, seen)) + gain(p) * env["y"] * 0.5
            env[name] = sigmoid(rate(p)) * env[name] + 0.5 * change
        return env

    def step(p, leaves, x, below, count, marks):
        env = dict(zip(names, unpack(leaves, n), strict=True))
        old = {k: marks.old(v) for k, v in env.items()}
        y = sum(term(p, x, old, below, marks.mix) for term in drives)
        env["y"] = jnp.broadcast_to(y, env["s0"].shape)
        if substeps > 1:
            env = lax.scan(lambda e, _: (one(p, e, marks), None), env, None, length=substeps)[0]
        elif branch:
            rest = lambda env: {k: v if k == "y" else 0.7 * v for k, v in env.items()}
            env = lax.cond(count % 3 < 2, lambda env: one(p, env, marks), rest, env)
        else:
            env = one(p, env, marks)
        return pack([env[k] for k in names]), show(p, env), env

    return Layer(step, n, pack, count)


def cell_of(seed):
    """The case of a seed, and its cell with the third mark: `cell(p, carry, x, marks)`."""
    rng = np.random.default_rng([20, seed])
    parameters = Parameters(rng)
    layers = []
    for _ in range(int(rng.choice([1, 1, 1, 2, 2, 3]))):
        layers.append(layer_of(rng, parameters, layers[-1].neurons if layers else 0))
    batch = [None, 1, 2, 3, layers[0].neurons][int(rng.integers(5))]
    reads = [parameters.weight(layer.neurons, OUT) for layer in layers]
    looks = [parameters.weight(layer.neurons, OUT) for layer in layers]

    def cell(p, carry, x, marks=None):
        marks = marks or Marks()
        *all_leaves, count = carry
        below, new, out = None, [], 0.0
        for layer, leaves, read, look in zip(layers, all_leaves, reads, looks, strict=True):
            leaves, below, env = layer.step(p, leaves, x, below, count, marks)
            total = sum(v for k, v in env.items() if k != "y")
            new.append(leaves)
            out = out + below @ read(p) + jnp.sin(total) @ look(p)
        return (*new, count + 1), out

    def marked(p, carry, x, old=keep, mix=keep):
        return cell(p, carry, x, Marks(old, mix))

    def make(key, steps, samples):
        draws = np.random.default_rng([21, seed])
        lead = () if batch is None else (samples,)
        normal = lambda scale, *shape: jnp.asarray(scale * draws.standard_normal(shape))
        params = {k: normal(0.7, *s) for k, s in parameters.shapes.items()}
        carry = [
            layer.pack([normal(0.6, *lead, layer.neurons) for _ in range(layer.states)])
            for layer in layers
        ]
        xs, ys = (normal(1.0, steps, *lead, size) for size in (IN, OUT))
        return params, (*carry, jnp.zeros((), jnp.int32)), xs, ys

    case = Case(
        f"seed {seed}",
        lambda p, c, x: cell(p, c, x),
        two_evaluations(marked),
        make,
        {},
        frozenset({"unbatched"} if batch is None else ()),
        B=batch or 1,
        compiled={"batch": None} if batch is None else {},
    )
    return case, cell


def example(seed):
    """The case of a seed, its cell, and data: params, carry, xs, ys and no signals."""
    case, cell = cell_of(seed)
    return case, cell, (*case.make(jax.random.key(seed), T, case.B), {})
