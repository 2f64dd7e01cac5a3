"""Operations that cells of other libraries are made of: normalisations, solves, transforms."""

import equinox as eqx
import haiku as hk
import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes

LEAKY = {"a": (N,), "W": (IN, N), "o": (N, OUT)}
NORM = LEAKY | {"U": (N, N), "g": (N,), "b": (N,)}


def leaky(p, h, drive):
    h = sigmoid(p["a"]) * h + drive
    return h, jnp.tanh(h) @ p["o"]


@case(shapes((N,), **LEAKY), exact="a W o", features="prelude")
def variance_of_the_input(p, h, x, old=keep, mix=keep):
    return leaky(p, h, (x / jnp.sqrt(jnp.var(x, axis=-1, keepdims=True) + 1)) @ p["W"])


def normalise(y, mix):
    """A layer norm without its gain and bias: (y - mean) * rsqrt(var + 1e-5)."""
    mean = jnp.mean(y, axis=-1, keepdims=True)
    var = jnp.var(y, axis=-1, keepdims=True)
    return (y - mix(mean)) * mix(lax.rsqrt(var + 1e-5))


def normalised(p, h, x, old=keep, mix=keep):
    y = normalise(x @ p["W"] + mix(old(h)) @ p["U"], mix)
    return leaky(p, h, jnp.tanh(p["g"] * y + p["b"]))


def of_equinox(p, h, x):
    norm = eqx.tree_at(lambda m: (m.weight, m.bias), eqx.nn.LayerNorm(N), (p["g"], p["b"]))
    return leaky(p, h, jnp.tanh(jax.vmap(norm)(x @ p["W"] + h @ p["U"])))


def of_haiku(p, h, x):
    norm = hk.without_apply_rng(hk.transform(lambda y: hk.LayerNorm(-1, True, True)(y)))
    y = norm.apply({"layer_norm": {"scale": p["g"], "offset": p["b"]}}, x @ p["W"] + h @ p["U"])
    return leaky(p, h, jnp.tanh(y))


for name, cell in (("layer_norm_of_equinox", of_equinox), ("layer_norm_of_haiku", of_haiku)):
    case(
        shapes((N,), **NORM),
        name=name,
        approximate="a W U g b",
        exact="o",
        features="recurrent layernorm",
        cell=cell,
    )(normalised)


@case(shapes((N,), **LEAKY, S=(N, N)), exact="a o", instantaneous="W S", features="siteless")
def solved(p, h, x, old=keep, mix=keep):
    """A linear system between the product and the state."""
    system = 2 * jnp.eye(N, dtype=h.dtype) + 0.3 * p["S"]
    drive = mix(jnp.linalg.solve(system, mix(x @ p["W"])[..., None])[..., 0])
    return leaky(p, h, drive)


@case(shapes((N,), **LEAKY), exact="a o", approximate="W", features="prelude")
def whitened_input(p, h, x, old=keep, mix=keep):
    """A linear system in front of the product, made of the product's own weight."""
    gram = p["W"] @ p["W"].T + jnp.eye(IN, dtype=h.dtype)
    return leaky(p, h, mix(jnp.linalg.solve(gram, x.T).T) @ p["W"])


@case(shapes((N,), **LEAKY), exact="a o", instantaneous="W", features="siteless")
def fourier_drive(p, h, x, old=keep, mix=keep):
    """A transform between the product and the state mixes the neurons."""
    return leaky(p, h, mix(jnp.fft.fft(mix(x @ p["W"]), axis=-1).real))


@case(shapes((N,), **LEAKY), exact="a W o", features="prelude")
def fourier_input(p, h, x, old=keep, mix=keep):
    return leaky(p, h, jnp.fft.fft(x, axis=-1).imag @ p["W"])


MEMORY = {"k": (IN, N), "v": (IN, N), "q": (IN, N), "r": (N, N), "o": (N, OUT)}


def recalled(p, S, x):
    return S, jnp.einsum("bij,bj->bi", S, x @ p["q"]) @ p["o"]


@case(shapes((N, N), **MEMORY), exact="r q o", instantaneous="k v", features="matrix siteless")
def linear_attention(p, S, x, old=keep, mix=keep):
    """The state is a matrix, written by outer products: each key and value meets a whole row."""
    k, v = mix(x @ p["k"]), mix(x @ p["v"])
    return recalled(p, sigmoid(p["r"]) * S + v[:, :, None] * k[:, None, :], x)


@case(
    shapes((N, N), **MEMORY, scale=0.4),
    approximate="r",
    exact="q o",
    instantaneous="k v",
    features="matrix recurrent siteless",
)
def delta_rule(p, S, x, old=keep, mix=keep):
    """What is written is what the memory gets wrong."""
    k, v = mix(jnp.tanh(x @ p["k"])), mix(x @ p["v"])
    wrong = mix(v - jnp.einsum("bij,bj->bi", mix(old(S)), k))
    return recalled(p, sigmoid(p["r"]) * S + wrong[:, :, None] * k[:, None, :], x)


# Padding


@case(shapes((N,), **LEAKY | {"W": (IN + 1, N)}), exact="a W o", features="prelude")
def padded_input(p, h, x, old=keep, mix=keep):
    return leaky(p, h, jnp.pad(x, ((0, 0), (0, 1)), constant_values=1.0) @ p["W"])


@case(
    shapes((1, N), x=(1, N), a=(N,), K=(1, 1, 3), o=(N, OUT)),
    approximate="a K",
    exact="o",
    features="conv recurrent",
)
def causal_convolution(p, h, x, old=keep, mix=keep):
    past = jnp.pad(mix(old(h)), ((0, 0), (0, 0), (2, 0)))
    drive = lax.conv(past, p["K"], (1,), "VALID")
    h = sigmoid(p["a"]) * h + jnp.tanh(x + drive)
    return h, h[:, 0] @ p["o"]


# Values of other kinds among the parameters, and none that has a trace


@case(shapes((N,), **LEAKY, g=(N,)), exact="a W g o", features="prelude branch")
def gated_by_a_sign(p, h, x, old=keep, mix=keep):
    """A boolean among the values that depend on parameters alone."""
    return leaky(p, h, x @ p["W"] + 0.3 * jnp.where(p["g"] > 0, p["g"] * h, -h))


@case(shapes((N,), o=(N, OUT)), exact="o", features="recurrent")
def reservoir(p, h, x, old=keep, mix=keep):
    """Fixed recurrent weights under a trained readout."""
    W = jnp.cos(jnp.arange(IN * N, dtype=h.dtype)).reshape(IN, N)
    U = 0.5 * jnp.sin(jnp.arange(N * N, dtype=h.dtype)).reshape(N, N)
    h = 0.5 * h + jnp.tanh(x @ W + mix(old(h)) @ U)
    return h, h @ p["o"]


@case(shapes((N,), **LEAKY), exact="a W o", features="branch meeting")
def guarded_root(p, h, x, old=keep, mix=keep):
    """The branch that is not taken is undefined there."""
    h = lax.cond(jnp.min(h) > 1e6, lambda h: 0.5 * jnp.sqrt(h), lambda h: 0.8 * h, h)
    return leaky(p, h, x @ p["W"])


# Derivatives of the user's own: the value is tanh, the derivative has a term across neurons


def with_derivative(change):
    """tanh whose tangent is `change(v, t)`; and as a sum of terms that a step can mark."""

    @jax.custom_jvp
    def written(v):
        return jnp.tanh(v)

    @written.defjvp
    def _(primals, tangents):
        (v,), (t,) = primals, tangents
        return written(v), change(v, t)

    return written


def steep(v, t):
    return t / jnp.cosh(v) ** 2 + 0.3 * jnp.mean(t, axis=-1, keepdims=True)


LATERAL = with_derivative(steep)


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="mixing degenerate")
def lateral_derivative(p, h, x, old=keep, mix=keep):
    """A call whose rule mixes is cut as a whole."""
    return leaky(p, LATERAL(mix(old(h))), x @ p["W"])


def with_backward(change):
    """The identity with a backward pass of its own."""
    f = jax.custom_vjp(lambda v: v)
    f.defvjp(lambda v: (v, None), lambda _, g: (change(g),))
    return f


CENTRED = with_backward(lambda g: g - jnp.mean(g, axis=-1, keepdims=True))
ROLLED = with_backward(lambda g: jnp.roll(g, 1, axis=-1))


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="mixing degenerate")
def centred_backward(p, h, x, old=keep, mix=keep):
    return leaky(p, CENTRED(mix(old(h))), x @ p["W"])


@case(shapes((N,), **LEAKY), approximate="a W", exact="o", features="mixing degenerate")
def rolled_backward(p, h, x, old=keep, mix=keep):
    return leaky(p, ROLLED(mix(old(h))), x @ p["W"])
