"""The cells: a gated unit, spiking neurons, two layers of adaptive ones. Sizes divide by 8."""

import jax
import jax.numpy as jnp
import numpy as np

IN, N, OUT, SAMPLES, STEPS = 8, 16, 2, 8, 4


@jax.custom_jvp
def spike(v):
    return (v > 0).astype(v.dtype)


spike.defjvp(lambda v, dv: (spike(*v), dv[0] / (1 + 4 * jnp.abs(v[0])) ** 2))


def gru(p, h, x):
    of_x, of_h = jnp.split(x @ p["w"], 3, axis=-1), jnp.split(h @ p["u"], 3, axis=-1)
    r, z = (jax.nn.sigmoid(a + b) for a, b in zip(of_x[:2], of_h[:2], strict=True))
    h = z * h + (1 - z) * jnp.tanh(of_x[2] + r * of_h[2] + p["b"])
    return h, h @ p["o"]


def lif(p, v, x):
    z = spike(v - 0.3)
    v = 0.8 * (v - 0.3 * jax.lax.stop_gradient(z)) + x @ p["w"] + z @ p["u"] + p["b"]
    return v, spike(v - 0.3) @ p["o"]


def _adaptive(v, a, drive):
    z = spike(v - 0.3 - 0.2 * a)
    return 0.8 * v - 0.3 * z + drive, 0.9 * a + z


def two_alif(p, carry, x):
    below, above = carry
    z = spike(below[0] - 0.3 - 0.2 * below[1])
    below = _adaptive(*below, x @ p["w"] + z @ p["u"] + p["b"])
    drive = spike(below[0] - 0.3 - 0.2 * below[1]) @ p["v"]
    z = spike(above[0] - 0.3 - 0.2 * above[1])
    above = _adaptive(*above, drive + z @ p["q"])
    return (below, above), spike(above[0] - 0.3 - 0.2 * above[1]) @ p["o"]


_OWN = {"w": (IN, N), "u": (N, N), "b": (N,), "o": (N, OUT)}
CELLS = {
    "gru": (gru, _OWN | {"w": (IN, 3 * N), "u": (N, 3 * N)}, (N,)),
    "lif": (lif, _OWN, (N,)),
    "two layers of alif": (two_alif, _OWN | {"v": (N, N), "q": (N, N)}, (((N,), (N,)),) * 2),
}


def example(name):
    """cell, params, carry, xs, targets and signals."""
    cell, shapes, carry = CELLS[name]
    random = np.random.default_rng(7)
    draw = lambda *shape: jnp.asarray(random.standard_normal(shape))
    params = {k: 0.5 * draw(*shape) for k, shape in shapes.items()}
    is_shape = lambda v: all(isinstance(n, int) for n in v)
    start = jax.tree.map(lambda s: 0.3 * draw(SAMPLES, *s), carry, is_leaf=is_shape)
    targets = draw(STEPS, SAMPLES, OUT)
    signals = {"y_target": draw(STEPS, SAMPLES, OUT), "modulator": draw(STEPS, SAMPLES)}
    return cell, params, start, draw(STEPS, SAMPLES, IN), targets, signals


def loss(out, target):
    return jnp.square(out - target).sum(-1)
