"""How the states of a layer lie in the leaves of the carry: each element keeps to one neuron."""

import jax.numpy as jnp
from jax import lax

#: For each layout (pack, unpack): from a list of (..., n) to a leaf, and back.
LAYOUTS = {
    "last": (
        lambda states: jnp.stack(states, axis=-1),
        lambda leaf, n: [leaf[..., k] for k in range(leaf.shape[-1])],
    ),
    "first": (
        lambda states: jnp.stack(states, axis=-2),
        lambda leaf, n: [leaf[..., k, :] for k in range(leaf.shape[-2])],
    ),
    "joined": (
        lambda states: jnp.concatenate(states, axis=-1),
        lambda leaf, n: [leaf[..., k : k + n] for k in range(0, leaf.shape[-1], n)],
    ),
    "woven": (
        lambda states: jnp.stack(states, axis=-1).reshape(*states[0].shape[:-1], -1),
        lambda leaf, n: list(jnp.moveaxis(leaf.reshape(*leaf.shape[:-1], n, -1), -1, 0)),
    ),
    "reversed": (
        lambda states: jnp.flip(jnp.concatenate(states, axis=-1), axis=-1),
        lambda leaf, n: jnp.split(jnp.flip(leaf, axis=-1), leaf.shape[-1] // n, axis=-1),
    ),
}


def complex_pack(states):
    return lax.complex(*states)


def complex_unpack(leaf, n):
    return [leaf.real, leaf.imag]


def layout(rng, count):
    """A random way to keep `count` states: (pack, unpack) from their list to a list of leaves."""
    if count == 2 and rng.random() < 0.25:
        pack, unpack = complex_pack, complex_unpack
    elif count == 1 or rng.random() < 0.4:
        return list, lambda leaves, n: list(leaves)
    else:
        pack, unpack = LAYOUTS[rng.choice(list(LAYOUTS))]
    return lambda states: [pack(states)], lambda leaves, n: unpack(leaves[0], n)
