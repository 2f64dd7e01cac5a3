"""Synapses with and without a state of their own, at the post- or the presynaptic index."""

import jax.numpy as jnp
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes, spike


@case(
    shapes((N,), lam=(N,), W=(IN, N), U=(N, N), o=(N, OUT), scale=1.0),
    approximate="lam W U",
    exact="o",
    features="recurrent spiking synapse",
)
def delta_synapse(p, V, x, old=keep, mix=keep):
    """Spikes jump straight onto the potential, outside the leak."""
    z = spike(V - 0.5)
    V = sigmoid(p["lam"]) * (V - z) + x @ p["W"] + mix(spike(old(V) - 0.5)) @ p["U"]
    return V, spike(V - 0.5) @ p["o"]


@case(
    shapes({"g": (N,), "V": (N,)}, alpha=(N,), lam=(N,), W=(IN, N), o=(N, OUT), scale=1.0),
    exact="alpha lam W o",
    features="spiking synapse",
)
def exponential_synapse(p, s, x, old=keep, mix=keep):
    """The new current feeds the new potential of the same group inside the step."""
    g = sigmoid(p["alpha"]) * s["g"] + x @ p["W"]
    V = sigmoid(p["lam"]) * s["V"] + g - spike(s["V"] - 0.5)
    return {"g": g, "V": V}, spike(V - 0.5) @ p["o"]


@case(
    shapes(
        {"g": (N,), "V": (N,)}, alpha=(N,), lam=(N,), W=(IN, N), U=(N, N), o=(N, OUT), scale=1.0
    ),
    approximate="alpha lam W U",
    exact="o",
    features="recurrent spiking synapse",
)
def exponential_synapse_recurrent(p, s, x, old=keep, mix=keep):
    z = mix(spike(old(s["V"]) - 0.5))
    g = sigmoid(p["alpha"]) * s["g"] + x @ p["W"] + z @ p["U"]
    V = sigmoid(p["lam"]) * s["V"] + g - spike(s["V"] - 0.5)
    return {"g": g, "V": V}, spike(V - 0.5) @ p["o"]


@case(
    shapes({"g": (N, 2), "V": (N,)}, alpha=(2,), E=(2,), lam=(N,), W=(IN, N, 2), o=(N, OUT)),
    exact="alpha E lam W o",
    features="spiking synapse",
)
def synapse_types(p, s, x, old=keep, mix=keep):
    """Two conductances per neuron, summed into the potential: three slots per position."""
    g = sigmoid(p["alpha"]) * s["g"] + jnp.tensordot(x, p["W"], 1)
    current = jnp.sum(g * (1 + p["E"] - s["V"][..., None]), axis=-1)
    V = sigmoid(p["lam"]) * s["V"] + current - spike(s["V"] - 0.5)
    return {"g": g, "V": V}, spike(V - 0.5) @ p["o"]


@case(
    shapes({"s": (IN,), "V": (N,)}, alpha=(IN,), lam=(N,), W=(IN, N), o=(N, OUT), scale=1.0),
    exact="lam W o",
    approximate="alpha",
    features="spiking synapse presynaptic",
)
def align_pre(p, c, x, old=keep, mix=keep):
    """A lower layer without a weight: its new state is live for the product above it."""
    s = sigmoid(p["alpha"]) * c["s"] + x
    V = sigmoid(p["lam"]) * c["V"] + mix(s) @ p["W"] - spike(c["V"] - 0.5)
    return {"s": s, "V": V}, spike(V - 0.5) @ p["o"]


@case(
    shapes(
        {"s": (5,), "V": (N,)}, A=(IN, 5), alpha=(5,), lam=(N,), W=(5, N), o=(N, OUT), scale=1.0
    ),
    exact="lam W o",
    approximate="A alpha",
    features="spiking synapse multi-layer",
)
def align_pre_weighted(p, c, x, old=keep, mix=keep):
    s = sigmoid(p["alpha"]) * c["s"] + jnp.tanh(x @ p["A"])
    V = sigmoid(p["lam"]) * c["V"] + mix(s) @ p["W"] - spike(c["V"] - 0.5)
    return {"s": s, "V": V}, spike(V - 0.5) @ p["o"]


@case(
    shapes(
        {"s": (N,), "V": (N,)}, alpha=(N,), lam=(N,), W=(IN, N), U=(N, N), o=(N, OUT), scale=1.0
    ),
    approximate="alpha lam W U",
    exact="o",
    features="recurrent spiking synapse presynaptic",
)
def align_pre_recurrent(p, c, x, old=keep, mix=keep):
    """The filtered own spikes are a new state too, and live for the recurrent product."""
    z = spike(c["V"] - 0.5)
    s = sigmoid(p["alpha"]) * c["s"] + z
    V = sigmoid(p["lam"]) * c["V"] + x @ p["W"] + mix(s) @ p["U"] - z
    return {"s": s, "V": V}, spike(V - 0.5) @ p["o"]
