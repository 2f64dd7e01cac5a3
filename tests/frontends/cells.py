"""Steps of the frameworks' cells, written out with the marks of the zoo, data for them, and
distances.

A step takes its weights as `p["cell"]` and the readout as `p["out"]`; its oracle is
`zoo._case.two_evaluations(step)`.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.nn import sigmoid

from zoo._case import keep

# N is not 5: see frontend_brainstate/models.py.
T, B, IN, N, OUT = 7, 4, 3, 6, 2


def data(steps=T, samples=B):
    rng = np.random.default_rng(1)
    return jnp.asarray(rng.standard_normal((steps, samples, IN))), jnp.asarray(
        rng.standard_normal((steps, samples, OUT))
    )


def sample_loss(out, target):
    return jnp.sum(jnp.square(out - target), axis=-1)


def total_loss(out, target):
    return jnp.sum(sample_loss(out, target))


def sequence_gradient(function, params, carry, xs, ys):
    """The gradient of the summed loss by reverse mode through the scan of `function`: BPTT, or an
    oracle's gradient.
    """

    def total(params):
        _, outs = lax.scan(lambda c, x: function(params, c, x), carry, xs)
        return jnp.sum(jax.vmap(sample_loss)(outs, ys))

    return jax.grad(total)(params)


def assert_close(a, b, tolerance=1e-10):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(
            x, y, rtol=tolerance, atol=tolerance * max(1.0, float(jnp.abs(y).max()))
        )


def assert_tells_apart(oracle, bptt):
    """The control of a comparison: the oracle is another gradient than BPTT, and no gradient of it
    is dead.
    """
    pairs = list(zip(jax.tree.leaves(oracle), jax.tree.leaves(bptt), strict=True))
    assert any(jnp.abs(a - b).max() > 1e-3 for a, b in pairs)
    assert all(jnp.abs(a).max() > 1e-3 for a, _ in pairs)


# Flax NNX: a kernel is (inputs, outputs)
# ---------------------------------------------------------------------------


def dense(p, v):
    y = v @ p["kernel"]
    return y + p["bias"] if "bias" in p else y


def nnx_gru(p, h, x, old=keep, mix=keep):
    xr, xz, xn = jnp.split(dense(p["dense_i"], mix(x)), 3, -1)
    hr, hz, hn = jnp.split(dense(p["dense_h"], mix(old(h))), 3, -1)
    r, z = sigmoid(xr + hr), sigmoid(xz + hz)
    h = (1 - z) * jnp.tanh(xn + r * hn) + z * h
    return h, h


def nnx_lstm(p, carry, x, old=keep, mix=keep):
    c, h = carry
    gate = lambda i, g: dense(p[i], mix(x)) + dense(p[g], mix(old(h)))
    i, f, o = (sigmoid(gate(*names)) for names in (("ii", "hi"), ("if_", "hf"), ("io", "ho")))
    c = f * c + i * jnp.tanh(gate("ig", "hg"))
    h = o * jnp.tanh(c)
    return (c, h), h


def nnx_optimized_lstm(p, carry, x, old=keep, mix=keep):
    c, h = carry
    i, f, g, o = jnp.split(dense(p["dense_i"], mix(x)) + dense(p["dense_h"], mix(old(h))), 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (c, h), h


def nnx_simple(p, h, x, old=keep, mix=keep):
    h = jnp.tanh(dense(p["dense_i"], mix(x)) + dense(p["dense_h"], mix(old(h))))
    return h, h


def under_dense(step):
    """A step under a dense readout."""

    def both(p, carry, x, old=keep, mix=keep):
        carry, h = step(p["cell"], carry, x, old, mix)
        return carry, dense(p["out"], h)

    return both


def stacked(lower, upper):
    """Two cells, the upper one on the output of the lower one, under a dense readout."""

    def both(p, carry, x, old=keep, mix=keep):
        first, h = lower(p["lower"], carry[0], x, old, mix)
        second, h = upper(p["upper"], carry[1], h, old, mix)
        return (first, second), dense(p["out"], h)

    return both


# Equinox: a weight is (outputs, inputs); samples are mapped by hand
# ---------------------------------------------------


def equinox_gru(p, h, x, old=keep, mix=keep):
    xr, xz, xn = jnp.split(mix(x) @ p.weight_ih.T + p.bias, 3, -1)
    hr, hz, hn = jnp.split(mix(old(h)) @ p.weight_hh.T, 3, -1)
    new = jnp.tanh(xn + sigmoid(xr + hr) * (hn + p.bias_n))
    h = new + sigmoid(xz + hz) * (h - new)
    return h, h


def equinox_lstm(p, carry, x, old=keep, mix=keep):
    h, c = carry
    i, f, g, o = jnp.split(mix(x) @ p.weight_ih.T + mix(old(h)) @ p.weight_hh.T + p.bias, 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (h, c), h
