"""One-step models, as small as shows what a row says, and the gradients that go with them."""

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, softmax

from .minimal import CHANNELS_LAST, LEAK, B, N, keep, spike, stopped, through

# Parameters behind another operation
# ------------------------------------------------------------------------------------------------


def readout(p, h, x, ops):
    h = LEAK * h["h"] + jnp.tanh(ops.matmul(x, p["W"]))
    return {"h": h}, ops.matmul(h, p["o"])


def reset_gate(p, h, x, ops, old=keep, mix=keep):
    r = sigmoid(ops.matmul(x, p["R"]))
    new = ops.matmul(x, p["W"]) + ops.matmul(mix(r * old(h["h"])), p["U"])
    h = 0.7 * h["h"] + 0.3 * jnp.tanh(new)
    return {"h": h}, h @ p["o"]


def encoder(p, h, x, ops, old=keep, mix=keep):
    below = jnp.tanh(ops.matmul(x, p["E"]))
    h = LEAK * h["h"] + jnp.tanh(ops.matmul(mix(below), p["W"]))
    return {"h": h}, h @ p["o"]


def linear_recurrence(p, h, x, ops):
    h = 0.7 * h["h"] + ops.matmul(x, p["W"])
    return {"h": h}, ops.matmul(h, p["C"]) + ops.matmul(x, p["D"])


# States that feed each other
# ------------------------------------------------------------------------------------------------


def lstm(p, h, x, ops):
    i, f, g, o = (ops.matmul(x, p[k]) + 0.5 * h["h"] for k in ("Wi", "Wf", "Wg", "Wo"))
    c = sigmoid(f) * h["c"] + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return {"h": h, "c": c}, h @ p["o"]


def synapse(p, h, x, ops):
    g = 0.7 * h["g"] + ops.matmul(x, p["W"])
    v = 0.9 * h["v"] + jnp.tanh(g)
    return {"g": g, "v": v}, jnp.tanh(v) @ p["o"]


# What mixes neurons in the recurrence
# ------------------------------------------------------------------------------------------------

MIXING = {
    "shift": lambda h: 0.5 * jnp.roll(h, 1),
    "sum": lambda h: 0.3 * jnp.sum(h) * jnp.ones_like(h),
    "cumulative sum": lambda h: 0.3 * jnp.cumsum(h),
    "mean": lambda h: 0.5 * jnp.mean(h) * jnp.ones_like(h),
    "softmax": softmax,
}


def mixing(name, of=lambda mixed, h: mixed(h)):
    """`of` says what of the mixing has a derivative."""

    def step(p, h, x, ops):
        h = 0.5 * h["h"] + of(MIXING[name], h["h"]) + ops.matmul(x, p["W"])
        return {"h": h}, jnp.tanh(h) @ p["o"]

    return step


def own_numerator(mixed, h):
    """Of a softmax: the sum below mixes neurons, the exponential above does not."""
    return jnp.exp(h) / stopped(jnp.sum(jnp.exp(h)))


OWN_PATH = dict.fromkeys(MIXING, lambda mixed, h: mixed(stopped(h))) | {"softmax": own_numerator}


def column_sums(mixed, h):
    """One VJP with ones in place of the diagonal."""
    fixed = stopped(h)
    return mixed(fixed) + (h - fixed) * jax.jacobian(mixed)(fixed).sum(0)


# What is done to a weight
# ------------------------------------------------------------------------------------------------

MASK = jnp.array([[1.0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 1]])


def changed(change):
    def step(p, h, x, ops):
        h = LEAK * h["h"] + jnp.tanh(ops.matmul(x, change(p)))
        return {"h": h}, h @ p["o"]

    return step


def of_the_operand(change):
    """The gradient of what the operation gets, taken for the weight's."""

    def gradient(given):
        operand = dict(given.params) | {"W": change(given.params)}
        return through(changed(lambda p: p["W"]))(given._replace(params=operand))

    return gradient


def tied(second=keep):
    def step(p, h, x, ops):
        h = 0.5 * h["h"] + jnp.tanh(ops.matmul(x, p["W"]))
        return {"h": h}, ops.matmul(h, second(p["W"]).T) @ p["q"]

    return step


# Between a product and the state
# ------------------------------------------------------------------------------------------------


def normalised(p, h, x, ops, cut=keep):
    y = ops.matmul(x, p["W"])
    y = (y - cut(jnp.mean(y))) / cut(jnp.sqrt(jnp.var(y) + 0.1))
    h = LEAK * h["h"] + y
    return {"h": h}, jnp.tanh(h) @ p["o"]


def squashed(p, h, x, ops, cut=keep):
    y = jnp.exp(ops.matmul(x, p["W"]))
    h = LEAK * h["h"] + y / cut(jnp.sum(y))
    return {"h": h}, jnp.tanh(h) @ p["o"]


def as_softmax(p, h, x, ops):
    h = LEAK * h["h"] + softmax(ops.matmul(x, p["W"]))
    return {"h": h}, jnp.tanh(h) @ p["o"]


def statistics_of_the_step(step):
    """The own path is traced, and what the statistics do at the same step is kept."""

    def twice(p, h, x, ops):
        return step(p, h, x, ops, cut=stopped)[0], step(p, h, x, ops)[1]

    return through(twice)


def shifted(move):
    def step(p, h, x, ops):
        h = LEAK * h["h"] + move(ops.matmul(x, p["W"]))
        return {"h": h}, jnp.tanh(h) @ p["o"]

    return step


SHIFTED = shifted(lambda y: jnp.roll(y, 1))
AT_THE_PRODUCT = shifted(lambda y: y + stopped(jnp.roll(y, 1) - y))


# Single algorithms
# ------------------------------------------------------------------------------------------------


def leaky(p, h, x, ops):
    h = LEAK * h["h"] + ops.matmul(x, p["W"])
    return {"h": h}, jnp.tanh(h) @ p["o"]


def at_its_own_step(p, h, x, ops):
    return leaky(p, {"h": stopped(h["h"])}, x, ops)


def recurrent(p, h, x, ops):
    product = ops.matmul(h["h"], p["U"])
    h = jnp.tanh(product + ops.matmul(x, p["W"]))
    return {"h": h}, h @ p["o"]


def self_weights(p, h, x, ops):
    """The diagonal with each neuron's weight on itself."""
    fixed = stopped(h["h"])
    own = (h["h"] - fixed) @ stopped(p["U"] * jnp.eye(N))
    h = jnp.tanh(fixed @ p["U"] + own + x @ p["W"])
    return {"h": h}, h @ p["o"]


def fires(gain=1.0):
    """Leaky neurons with a detached reset."""

    def step(p, h, x, ops):
        fired = stopped(spike(h["h"] - 0.3))
        v = 0.9 * (h["h"] - 0.3 * fired) + gain * ops.matmul(x, p["W"])
        return {"h": v}, spike(v - 0.3) @ p["o"]

    return step


def with_bias(p, h, x, ops):
    h = LEAK * h["h"] + ops.matmul(x, p["W"], p["b"])
    return {"h": h}, jnp.tanh(h) @ p["o"]


def elementwise(p, h, x, ops):
    h = LEAK * h["h"] + ops.matmul(x, p["W"]) + ops.element_wise(p["b"])
    return {"h": h}, jnp.tanh(h) @ p["o"]


def two_layers(p, h, x, ops):
    v = LEAK * (h["v"] - 0.3 * stopped(spike(h["v"] - 0.3))) + ops.matmul(x, p["W"])
    y = LEAK * h["y"] + ops.matmul(spike(v - 0.3), p["o"])
    return {"v": v, "y": y}, y


# What was refused or failed
# ------------------------------------------------------------------------------------------------


def adapting(p, h, x, ops):
    v = LEAK * (h["v"] - h["a"]) + ops.matmul(x, p["W"])
    return {"v": v, "a": 0.9 * h["a"] + 0.1 * h["v"]}, jnp.tanh(v) @ p["o"]


def convolved(p, h, x, ops):
    y = ops.conv(x, p["K"], p["b"], feature_group_count=2, dimension_numbers=CHANNELS_LAST)
    h = LEAK * h["h"] + jnp.tanh(y)
    return {"h": h}, h.reshape(B, -1) @ p["o"]


def bare_bias(p, h, x, ops):
    h = LEAK * h["h"] + ops.matmul(x, p["W"]) + p["b"]
    return {"h": h}, jnp.tanh(h) @ p["o"]


def scaled(p):
    return 2 * p["W"]


def masked(p):
    return MASK * p["W"]


def summed(p):
    return p["W"] + p["V"]
