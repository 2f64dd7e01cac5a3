"""Spiking neurons with resets, adaptation and trained thresholds."""

import jax
import jax.numpy as jnp
from jax.nn import sigmoid, softplus

from ._case import IN, OUT, N, case, keep, shapes, spike


@case(
    shapes((N,), lam=(N,), th=(), W=(IN, N), U=(N, N), o=(N, OUT), scale=1.0),
    approximate="lam th W U",
    exact="o",
    features="recurrent spiking prelude",
)
def lif(p, V, x, old=keep, mix=keep):
    """Own spike in the reset, everybody else's through a product without self-connections."""
    th = softplus(p["th"])
    U = p["U"] * (1 - jnp.eye(N, dtype=p["U"].dtype))
    drive = x @ p["W"] + mix(spike(old(V) - th)) @ U
    V = sigmoid(p["lam"]) * V + drive - th * spike(V - th)
    return V, spike(V - th) @ p["o"]


@case(
    shapes((N,), lam=(N,), th=(N,), gain=(), W=(IN, N), o=(N, OUT), scale=1.0),
    exact="lam th gain W o",
    features="spiking",
)
def lif_feedforward(p, V, x, old=keep, mix=keep):
    V = sigmoid(p["lam"]) * V + x @ p["W"]
    z = spike(p["gain"] * (V - p["th"]))
    return V - z, z @ p["o"]


@case(
    shapes({"V": (N,), "z": (N,)}, lam=(), th=(N,), W=(IN, N), U=(N, N), o=(2 * N, OUT), scale=1.0),
    approximate="lam th W U",
    exact="o",
    features="recurrent spiking",
)
def lif_readout_before_reset(p, s, x, old=keep, mix=keep):
    """The output sees the potential before the reset; no carry output does."""
    V = sigmoid(p["lam"]) * s["V"] + x @ p["W"] + mix(old(s["z"])) @ p["U"]
    z = spike(V - p["th"])
    return {"V": V - p["th"] * z, "z": z}, jnp.concatenate([V, z], axis=-1) @ p["o"]


ALIF = {"lam": (N,), "rho": (N,), "beta": (N,), "W": (IN, N), "U": (N, N), "o": (N, OUT)}


@case(
    shapes({"V": (N,), "a": (N,)}, **ALIF, scale=1.0),
    approximate="lam rho beta W U",
    exact="o",
    features="recurrent spiking adaptive",
)
def alif(p, s, x, old=keep, mix=keep):
    def fire(V, a):
        return spike(V - 0.5 - p["beta"] * a)

    z = fire(s["V"], s["a"])
    drive = x @ p["W"] + mix(fire(old(s["V"]), old(s["a"]))) @ p["U"]
    V = sigmoid(p["lam"]) * s["V"] + drive - z
    a = sigmoid(p["rho"]) * s["a"] + z
    return {"V": V, "a": a}, fire(V, a) @ p["o"]


@case(
    shapes({"V": (N,), "a": (N // 2,)}, **ALIF | {"rho": (N // 2,), "beta": (N // 2,)}, scale=1.0),
    approximate="lam rho beta W U",
    exact="o",
    features="recurrent spiking adaptive layout",
)
def alif_half(p, s, x, old=keep, mix=keep):
    """Only the first half of the neurons adapts."""

    def fire(V, a):
        return spike(V - 0.5 - jnp.concatenate([p["beta"] * a, jnp.zeros_like(a)], axis=-1))

    z = fire(s["V"], s["a"])
    drive = x @ p["W"] + mix(fire(old(s["V"]), old(s["a"]))) @ p["U"]
    V = sigmoid(p["lam"]) * s["V"] + drive - z
    a = sigmoid(p["rho"]) * s["a"] + z[:, : N // 2]
    return {"V": V, "a": a}, fire(V, a) @ p["o"]


@case(
    shapes((2 * N,), lam=(N,), rho=(N,), W=(IN, N), o=(N, OUT), scale=1.0),
    exact="lam rho W o",
    features="spiking adaptive fused layout",
)
def alif_fused(p, s, x, old=keep, mix=keep):
    """Potential and adaptation side by side in one carry leaf."""
    V, a = jnp.split(s, 2, axis=-1)
    z = spike(V - 0.5 - a)
    V = sigmoid(p["lam"]) * V + x @ p["W"] - z
    a = sigmoid(p["rho"]) * a + 0.5 * z
    return jnp.concatenate([V, a], axis=-1), spike(V - 0.5 - a) @ p["o"]


@jax.custom_vjp
def backward_spike(v):
    """A spike whose surrogate exists in reverse mode only."""
    return (v > 0).astype(v.dtype)


backward_spike.defvjp(lambda v: (backward_spike(v), v), lambda v, ct: (ct * jnp.exp(-jnp.abs(v)),))


@case(
    shapes((N,), lam=(N,), W=(IN, N), o=(N, OUT), scale=1.0),
    exact="lam W o",
    features="spiking reverse-only",
)
def lif_reverse_surrogate(p, V, x, old=keep, mix=keep):
    V = sigmoid(p["lam"]) * V + x @ p["W"] - backward_spike(V - 0.5)
    return V, backward_spike(V - 0.5) @ p["o"]
