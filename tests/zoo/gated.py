"""Gated cells."""

import jax.numpy as jnp
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes


@case(
    shapes({"c": (N,), "h": (N,)}, W=(IN, 4 * N), U=(N, 4 * N), b=(4 * N,), o=(N, OUT)),
    approximate="W U b",
    exact="o",
    features="recurrent gated fused",
)
def lstm(p, s, x, old=keep, mix=keep):
    drive = x @ p["W"] + mix(old(s["h"])) @ p["U"] + p["b"]
    i, f, g, o = jnp.split(drive, 4, axis=-1)
    c = sigmoid(f) * s["c"] + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return {"c": c, "h": h}, h @ p["o"]


@case(
    shapes(((N,), (N,)), W=(IN + N, 4 * N), b=(4 * N,), pi=(N,), pf=(N,), po=(N,), o=(N, OUT)),
    approximate="W b pi pf po",
    exact="o",
    features="recurrent gated fused",
)
def lstm_peephole(p, s, x, old=keep, mix=keep):
    c, h = s
    drive = mix(jnp.concatenate([x, old(h)], axis=-1)) @ p["W"] + p["b"]
    i, f, g, o = jnp.split(drive, 4, axis=-1)
    c = sigmoid(f + p["pf"] * c) * c + sigmoid(i + p["pi"] * c) * jnp.tanh(g)
    h = sigmoid(o + p["po"] * c) * jnp.tanh(c)
    return (c, h), h @ p["o"]


@case(
    shapes((N,), W=(IN, 3 * N), U=(N, 3 * N), b=(3 * N,), bu=(3 * N,), o=(N, OUT)),
    approximate="W U b bu",
    exact="o",
    features="recurrent gated fused",
)
def gru_reset_after(p, h, x, old=keep, mix=keep):
    """The reset gate multiplies the product, which is positional."""
    xr, xz, xn = jnp.split(x @ p["W"] + p["b"], 3, axis=-1)
    hr, hz, hn = jnp.split(mix(old(h)) @ p["U"] + p["bu"], 3, axis=-1)
    z = sigmoid(xz + hz)
    h = z * h + (1 - z) * jnp.tanh(xn + sigmoid(xr + hr) * hn)
    return h, h @ p["o"]


GRU = dict.fromkeys(("Wr", "Wz", "Wn"), (IN + N, N)) | dict.fromkeys(("br", "bz", "bn"), (N,))


@case(
    shapes((N,), **GRU, o=(N, OUT)),
    approximate="Wz Wn bz bn",
    instantaneous="Wr br",
    exact="o",
    features="recurrent gated siteless",
)
def gru_reset_before(p, h, x, old=keep, mix=keep):
    """The reset gate sits under a second product: it has no site."""
    xh = jnp.concatenate([x, old(h)], axis=-1)
    r = sigmoid(xh @ p["Wr"] + p["br"])
    z = sigmoid(mix(xh) @ p["Wz"] + p["bz"])
    n = jnp.tanh(mix(jnp.concatenate([x, r * old(h)], axis=-1)) @ p["Wn"] + p["bn"])
    h = z * h + (1 - z) * n
    return h, h @ p["o"]


@case(
    shapes((N,), Wf=(IN, N), Uf=(N, N), bf=(N,), Wh=(IN, N), Uh=(N, N), bh=(N,), o=(N, OUT)),
    approximate="Wf Uf bf Wh Uh bh",
    exact="o",
    features="recurrent gated",
)
def mgu(p, h, x, old=keep, mix=keep):
    """One gate in two places: at its own position, and under the second product."""
    f = sigmoid(x @ p["Wf"] + mix(old(h)) @ p["Uf"] + p["bf"])
    n = jnp.tanh(x @ p["Wh"] + mix(f * old(h)) @ p["Uh"] + p["bh"])
    h = (1 - f) * h + f * n
    return h, h @ p["o"]


@case(
    shapes((N,), Wf=(IN, N), bf=(N,), u=(N,), Wh=(IN, N), o=(N, OUT)),
    exact="Wf bf u Wh o",
    features="gated",
)
def minimal_gated(p, h, x, old=keep, mix=keep):
    f = sigmoid(x @ p["Wf"] + p["u"] * h + p["bf"])
    h = f * h + (1 - f) * jnp.tanh(x @ p["Wh"])
    return h, h @ p["o"]
