"""Cells in which every neuron keeps to itself, however they are written: nothing mixes, so every
gradient is exact. `twin` is the plain way to write the same.
"""

import jax.numpy as jnp
from jax.nn import sigmoid, softmax

from ._case import IN, OUT, N, case, keep, shapes

LEAKY = {"a": (N,), "W": (IN, N), "o": (N, OUT)}
H = (N,)
SIGNS = jnp.array([1.0, 1.0, -1.0, -1.0])


def positional(carry, params=LEAKY, twin=None, features="layout"):
    """Register a step without marks."""

    def register(step):
        marked = lambda p, c, x, old=keep, mix=keep: step(p, c, x)
        made, exact = shapes(carry, **params), " ".join(params)
        case(made, exact=exact, features=features, name=step.__name__, twin=twin)(marked)
        return step

    return register


def fast(p, h, x):
    return sigmoid(p["a"]) * h + x @ p["W"]


def read(p, h):
    return jnp.tanh(h) @ p["o"]


@positional((H, H, H, H))
def filters_of_leaves(p, c, x):
    """Three filters of one neuron's state, each a leaf."""
    v = fast(p, c[0], x)
    bank = [0.9 * old + v for old in c[1:]]
    return (v, *bank), read(p, sum(bank))


@positional((H, (N, 3)))
def filter_bank(p, c, x):
    """Three filters of one neuron's state, in one leaf."""
    v = fast(p, c[0], x)
    bank = 0.9 * c[1] + v[..., None]
    return (v, bank), read(p, bank.sum(-1))


def by_signs(p, c, x):
    return (fast(p, c[0], x), 0.9 * c[1] + c[0] * SIGNS), read(p, c[1])


@positional((H, H), twin=by_signs)
def excitatory_and_inhibitory(p, c, x):
    """Signs by halves."""
    halves = [c[0][:, :2], -c[0][:, 2:]]
    return (fast(p, c[0], x), 0.9 * c[1] + jnp.concatenate(halves, -1)), read(p, c[1])


def by_gather(p, c, x):
    first = fast(p, c[0], x) + 0.3 * c[1][:, jnp.array([3, 0, 1, 2])]
    return (first, 0.8 * c[1] + 0.3 * c[0][:, jnp.array([1, 2, 3, 0])]), read(p, c[0])


@positional((H, H), twin=by_gather)
def rolled_partner(p, c, x):
    """Pairs of neurons of two leaves, one leaf rolled."""
    first = fast(p, c[0], x) + 0.3 * jnp.roll(c[1], 1, -1)
    return (first, 0.8 * c[1] + 0.3 * jnp.roll(c[0], -1, -1)), read(p, c[0])


@positional(H)
def half_multiplied(p, h, x):
    h = h.at[:, 2:].multiply(0.5, unique_indices=True)
    h = fast(p, h, x)
    return h, read(p, h)


@positional(H)
def one_element_maximum(p, h, x):
    y = x @ p["W"]
    h = sigmoid(p["a"]) * h.at[:, 2].max(y[:, 2]) + y
    return h, read(p, h)


def two_columns(p, c, x):
    v = fast(p, c[..., 0], x) - 0.1 * c[..., 1]
    return jnp.stack([v, 0.9 * c[..., 1] + v], -1), read(p, v)


@positional((N, 2), twin=two_columns)
def set_columns(p, c, x):
    """Two states in one leaf, set one by one."""
    v = fast(p, c[..., 0], x) - 0.1 * c[..., 1]
    return c.at[..., 0].set(v).at[..., 1].set(0.9 * c[..., 1] + v), read(p, v)


@positional(H)
def rotating_pairs(p, h, x):
    """Neurons k and k + 2 are the two numbers of one oscillator."""
    u, v = h[:, :2], h[:, 2:]
    turned = jnp.concatenate([0.8 * u - 0.3 * v, 0.3 * u + 0.8 * v], -1)
    h = turned + sigmoid(p["a"]) * (x @ p["W"])
    return h, read(p, h)


@positional((H, (3, N)))
def shift_register(p, c, x):
    """A delayed state of the neuron's own, in a register."""
    v = fast(p, c[0], x) - 0.2 * c[1][:, 0]
    return (v, jnp.concatenate([c[1][:, 1:], v[:, None]], 1)), read(p, v)


@positional((H, H, H, H))
def shift_register_of_leaves(p, c, x):
    v = fast(p, c[0], x) - 0.2 * c[1]
    return (v, c[2], c[3], v), read(p, v)


def by_product(p, h, x):
    h = h * p["r"] + sigmoid(p["a"]) * (x @ p["W"])
    return h, read(p, h)


@positional(H, LEAKY | {"r": H}, twin=by_product)
def diagonal_matrix(p, h, x):
    h = h @ jnp.diag(p["r"]) + sigmoid(p["a"]) * (x @ p["W"])
    return h, read(p, h)


@positional((N, 3), LEAKY)
def softmax_over_own_slots(p, c, x):
    """No leaf has one element a neuron."""
    c = sigmoid(p["a"])[:, None] * c + softmax(c, -1) + (x @ p["W"])[..., None]
    return c, read(p, c[..., 0] - c[..., 1] ** 2)


@case(
    shapes(H, a=H, E=(3, IN, N), o=(N, OUT)),
    exact="a o",
    instantaneous="E",
    features="branch meeting",
)
def one_expert(p, h, x, old=keep, mix=keep):
    """The first sample chooses the expert of all: two operations stand between E and the state."""
    chosen = p["E"][(x[0, 0] > 0).astype(int) + (x[0, 1] > 0)]
    h = sigmoid(p["a"]) * h + mix(x @ chosen)
    return h, read(p, h)


@positional((H, H), {"w": H, "W": (IN, N), "o": (N, OUT)}, features="substeps")
def oscillator(p, c, x):
    """Two variables, by a midpoint rule."""

    def slope(q, v):
        return v, -jnp.square(p["w"]) * q - 0.1 * v + x @ p["W"]

    q, v = c
    first = slope(q, v)
    second = slope(q + 0.2 * first[0], v + 0.2 * first[1])
    q, v = q + 0.4 * second[0], v + 0.4 * second[1]
    return (q, v), q @ p["o"]


@case(
    shapes((H, H), **LEAKY, U=(N, N), t=H), approximate="a W U", exact="t o", features="recurrent"
)
def learned_filter(p, c, x, old=keep, mix=keep):
    """Behind recurrent neurons: what the filter's own rate does stays in the filter."""
    v = sigmoid(p["a"]) * c[0] + jnp.tanh(x @ p["W"] + mix(old(c[0])) @ p["U"])
    filtered = sigmoid(p["t"]) * c[1] + v
    return (v, filtered), read(p, filtered)


def two_leaves(p, c, x):
    v, g = c[..., 0], c[..., 1]
    g = 0.6 * g + x @ p["W"] + jnp.tanh(v) @ p["U"]
    v = sigmoid(p["a"]) * v + jnp.tanh(g)
    return jnp.stack([v, g], -1), read(p, v)


@case(shapes((N, 2), **LEAKY, U=(N, N)), approximate="a W U", exact="o", features="recurrent fused")
def stacked_recurrent(p, c, x, old=keep, mix=keep):
    """A recurrent layer whose two states are one leaf."""
    v, g = c[..., 0], c[..., 1]
    g = 0.6 * g + x @ p["W"] + mix(jnp.tanh(old(v))) @ p["U"]
    v = sigmoid(p["a"]) * v + jnp.tanh(g)
    return jnp.stack([v, g], -1), read(p, v)
