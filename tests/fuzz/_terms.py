"""Random pieces of a cell: weights, what mixes, and expressions in which a neuron keeps to itself.

Every piece is a function of `(p, env)`, p the parameters and env the values of the step by name.
"""

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import sigmoid

UNARY = {
    "tanh": jnp.tanh,
    "sigmoid": sigmoid,
    "sine": jnp.sin,
    "bent": lambda v: jnp.where(v > 0, v, 0.3 * v),
    "bump": lambda v: v / (1 + jnp.square(v)),
    "kept": lambda v: lax.optimization_barrier(v) * 0.9,
}
BINARY = {
    "sum": jnp.add,
    "difference": jnp.subtract,
    "product": lambda a, b: jnp.tanh(a) * b,
    "choice": lambda a, b: jnp.where(a > 0.1, b, 0.5 * a),
    "larger": jnp.maximum,
    "ratio": lambda a, b: a / (1.5 + jnp.cos(b)),
}


class Parameters:
    """Names and shapes of the parameters that the pieces ask for."""

    def __init__(self, rng):
        self.rng, self.shapes = rng, {}

    def new(self, *shape):
        name = f"p{len(self.shapes)}"
        self.shapes[name] = shape
        return name

    def old_or_new(self, *shape):
        """Now and then one that is there already: a shared parameter."""
        like = [name for name, s in self.shapes.items() if s == shape]
        return self.rng.choice(like) if like and self.rng.random() < 0.2 else self.new(*shape)

    def vector(self, n):
        """A number for each neuron, or one for all."""
        name = self.old_or_new(n) if self.rng.random() < 0.8 else self.new()
        return lambda p: p[name]

    def weight(self, rows, columns):
        """A matrix, as it is or made of parameters."""
        kind = self.rng.choice(["plain", "plain", "transposed", "masked", "scaled", "factorised"])
        if kind == "transposed":
            name = self.old_or_new(columns, rows)
            return lambda p: p[name].T
        if kind == "factorised":
            left, right = self.new(rows, 2), self.new(2, columns)
            return lambda p: p[left] @ p[right]
        name = self.old_or_new(rows, columns)
        if kind == "masked":
            mask = np.zeros((rows, columns), bool)
            while mask.sum(0).max() < 2:  # with one entry a column a product does not mix
                mask = self.rng.random((rows, columns)) < 0.7
            return lambda p: jnp.where(mask, p[name], 0)
        if kind == "scaled":
            scale = self.new()
            return lambda p: jnp.exp(p[scale]) * p[name]
        return lambda p: p[name]


def expression(rng, parameters, names, n, depth):
    """A random positional expression of the named values."""
    if depth == 0 or rng.random() < 0.15:
        if rng.random() < 0.25:
            vector = parameters.vector(n)
            return lambda p, env: jnp.zeros_like(env[names[0]]) + vector(p)
        name = rng.choice(names)
        return lambda p, env: env[name]
    if rng.random() < 0.5:
        function = UNARY[rng.choice(list(UNARY))]
        inner = expression(rng, parameters, names, n, depth - 1)
        return lambda p, env: function(inner(p, env))
    function = BINARY[rng.choice(list(BINARY))]
    left, right = (expression(rng, parameters, names, n, depth - 1) for _ in range(2))
    return lambda p, env: function(left(p, env), right(p, env))


def activity(rng, parameters, names, n):
    """What neurons show to others: reads at least one of their states."""
    name = rng.choice(names)
    rest = expression(rng, parameters, names, n, 1)
    return lambda p, env: jnp.tanh(env[name] + 0.5 * rest(p, env))


def drive(rng, parameters, kind, n, sizes, show):
    """A mixing term: `(p, x, old, below, mix)` -> a value for each neuron.

    `show(p, env)` is the activity of the layer, `old` its old states, `below` the new activity of
    the layer below, or None.
    """
    inputs, under = sizes
    if kind == "input":
        W = parameters.weight(inputs, n)
        return lambda p, x, old, below, mix: x @ W(p)
    if kind == "encoded":
        E, W = parameters.weight(inputs, 3), parameters.weight(3, n)
        return lambda p, x, old, below, mix: mix(jnp.tanh(x @ E(p))) @ W(p)
    if kind == "recurrent":
        U = parameters.weight(n, n)
        return lambda p, x, old, below, mix: mix(show(p, old)) @ U(p)
    if kind == "below":
        M = parameters.weight(under, n)
        return lambda p, x, old, below, mix: mix(below) @ M(p)
    if kind == "joined":
        M = parameters.weight(under + n, n)

        def joined(p, x, old, below, mix):
            return jnp.concatenate([mix(below), mix(show(p, old))], axis=-1) @ M(p)

        return joined
    c = parameters.old_or_new(n)  # one number for all would scale the sum itself: no site
    if kind == "rolled":  # a roll moves; what mixes is that a neuron reads another's old state
        return lambda p, x, old, below, mix: p[c] * jnp.roll(show(p, old), 1, axis=-1)
    if kind == "total":
        return lambda p, x, old, below, mix: (
            p[c] * jnp.sum(mix(show(p, old)), axis=-1, keepdims=True)
        )
    raise ValueError(kind)
