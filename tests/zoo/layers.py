"""More than one layer of states."""

import jax.numpy as jnp
from jax.nn import sigmoid

from ._case import IN, OUT, N, case, keep, shapes, spike

M = 5  # neurons of an upper layer
TWO = {"a1": (N,), "W1": (IN, N), "a2": (M,), "W2": (N, M), "o": (M, OUT)}


@case(
    shapes(((N,), (M,)), **TWO, U1=(N, N), U2=(M, M)),
    approximate="a1 W1 U1 a2 W2 U2",
    exact="o",
    features="recurrent multi-layer",
)
def two_recurrent_layers(p, c, x, old=keep, mix=keep):
    h1, h2 = c
    new1 = sigmoid(p["a1"]) * h1 + jnp.tanh(x @ p["W1"] + mix(old(h1)) @ p["U1"])
    new2 = sigmoid(p["a2"]) * h2 + jnp.tanh(mix(new1) @ p["W2"] + mix(old(h2)) @ p["U2"])
    return (new1, new2), new2 @ p["o"]


@case(
    shapes(((N,), (M,)), **TWO | {"W2": (N + M, M)}, scale=1.0),
    approximate="a1 W1 a2 W2",
    exact="o",
    features="recurrent multi-layer spiking",
)
def concatenated_layers(p, c, x, old=keep, mix=keep):
    """One product over new spikes of the layer below (live) and own old ones (stopped)."""
    V1, V2 = c
    new1 = sigmoid(p["a1"]) * V1 + x @ p["W1"] - spike(V1 - 0.5)
    both = jnp.concatenate([spike(new1 - 0.5), spike(old(V2) - 0.5)], axis=-1)
    new2 = sigmoid(p["a2"]) * V2 + mix(both) @ p["W2"] - spike(V2 - 0.5)
    return (new1, new2), spike(new2 - 0.5) @ p["o"]


@case(
    shapes(
        ((N,), (M,), (N,)),
        lam=(3,),
        W1=(IN, N),
        W2=(N, M),
        W3=(M, N),
        lam3=(N,),
        o=(N, OUT),
        scale=1.2,
    ),
    approximate="lam W1 W2",
    exact="W3 lam3 o",
    features="multi-layer spiking",
)
def three_lif_layers(p, c, x, old=keep, mix=keep):
    leaks = [*sigmoid(p["lam"][:2]), sigmoid(p["lam3"] + p["lam"][2])]
    new, below = [], x
    for leak, W, V in zip(leaks, (p["W1"], p["W2"], p["W3"]), c, strict=True):
        new.append(leak * V + mix(below) @ W - 0.5 * spike(V - 0.5))
        below = spike(new[-1] - 0.5)
    return tuple(new), below @ p["o"]


@case(
    shapes({"h": (N,), "y": (OUT,)}, a=(N,), W=(IN, N), U=(N, N), o=(N, OUT), kappa=(OUT,)),
    approximate="a W U",
    exact="o kappa",
    features="recurrent multi-layer",
)
def leaky_readout(p, c, x, old=keep, mix=keep):
    """The readout has a state: exact itself, and what breaks exactness below."""
    h = sigmoid(p["a"]) * c["h"] + jnp.tanh(x @ p["W"] + mix(old(c["h"])) @ p["U"])
    y = sigmoid(p["kappa"]) * c["y"] + mix(h) @ p["o"]
    return {"h": h, "y": y}, y


@case(
    shapes(((N,), (M,)), **TWO, F=(M, N)),
    approximate="a1 W1 F a2 W2",
    exact="o",
    features="recurrent multi-layer",
)
def feedback(p, c, x, old=keep, mix=keep):
    """No layer is recurrent in itself, the two together are."""
    h1, h2 = c
    new1 = sigmoid(p["a1"]) * h1 + jnp.tanh(x @ p["W1"] + mix(old(h2)) @ p["F"])
    new2 = sigmoid(p["a2"]) * h2 + jnp.tanh(mix(new1) @ p["W2"])
    return (new1, new2), new2 @ p["o"]


@case(
    shapes(((N,), (M,)), **TWO | {"W2": (3, M)}, A=(N, 3)),
    approximate="a1 W1",
    exact="a2 W2 o",
    instantaneous="A",
    features="multi-layer siteless",
)
def perceptron_between(p, c, x, old=keep, mix=keep):
    h1, h2 = c
    new1 = sigmoid(p["a1"]) * h1 + jnp.tanh(x @ p["W1"])
    new2 = sigmoid(p["a2"]) * h2 + mix(jnp.tanh(new1 @ p["A"])) @ p["W2"]
    return (new1, new2), new2 @ p["o"]


@case(
    shapes(((N,), (N,)), a=(2, N), W=(IN, N), w=(N,), o=(N, OUT)),
    exact="a W w o",
    features="multi-layer",
)
def positional_layers(p, c, x, old=keep, mix=keep):
    """Two layers joined neuron by neuron are one group of two slots."""
    h1, h2 = c
    new1 = sigmoid(p["a"][0]) * h1 + jnp.tanh(x @ p["W"])
    new2 = sigmoid(p["a"][1]) * h2 + jnp.tanh(p["w"] * new1)
    return (new1, new2), new2 @ p["o"]
