"""Each cell of `braintrace.nn` written out in plain JAX from its equation, with the marks of the
two-evaluation oracle.
"""

import math

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
from jax.nn import sigmoid

from braintrace import nn
from zoo._case import keep

IN, N, OUT, T, B = 3, 6, 2, 7, 4
TAU, DT = 5.0, 1.0
LEAK = math.exp(-DT / TAU)
sg = jax.lax.stop_gradient


def linear(p, name, v):
    return v @ p[name]["weight"] + p[name]["bias"]


def both(x, h):
    return jnp.concatenate([x, h], axis=-1)


def vanilla(p, h, x, old, mix):
    return (h := jnp.tanh(linear(p, "W", mix(both(x, old(h)))))), h


def gru(p, h, x, old, mix):
    r, z = (sigmoid(linear(p, name, mix(both(x, old(h))))) for name in ("Wr", "Wz"))
    h = (1 - z) * h + z * jnp.tanh(linear(p, "Wh", mix(both(x, r * old(h)))))
    return h, h


def mgu(p, h, x, old, mix):
    f = sigmoid(linear(p, "Wf", mix(both(x, old(h)))))
    h = (1 - f) * h + f * jnp.tanh(linear(p, "Wh", mix(both(x, f * old(h)))))
    return h, h


def lstm(p, carry, x, old, mix):
    h, c = carry
    i, g, f, o = (linear(p, name, mix(both(x, old(h)))) for name in ("Wi", "Wg", "Wf", "Wo"))
    c = sigmoid(f + 1.0) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def urlstm(p, carry, x, old, mix):
    h, c = carry
    f, r, g, o = (mix(both(x, old(h))) @ p[k]["weight"] for k in ("Wf", "Wr", "Wu", "Wo"))
    f, r = sigmoid(f + p["bias"]), sigmoid(r - p["bias"])
    g_ur = 2 * r * f + (1 - 2 * r) * f**2
    c = g_ur * c + (1 - g_ur) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def cfn(p, h, x, old, mix):
    f, i = (sigmoid(linear(p, name, mix(both(x, old(h))))) for name in ("Wf", "Wi"))
    h = f * jnp.tanh(h) + i * jnp.tanh(linear(p, "Wh", x))
    return h, h


def minimal(p, h, x, old, mix):
    z = linear(p, "phi", x)
    gate = sigmoid(linear(p, "W_u", mix(both(z, old(h)))))
    h = gate * h + (1 - gate) * z
    return h, h


def mini_gru(p, h, x, old, mix):
    z = sigmoid(linear(p, "W_z", mix(both(x, old(h)))))
    h = (1 - z) * h + z * linear(p, "W_x", x)
    return h, h


def mini_lstm(p, h, x, old, mix):
    f, i = (sigmoid(linear(p, name, mix(both(x, old(h))))) for name in ("W_f", "W_i"))
    h = f * h + i * linear(p, "W_x", x)
    return h, h


def lru(p, h, x, old, mix):
    eigenvalue = jnp.exp(jax.lax.complex(-jnp.exp(p["nu_log"]), jnp.exp(p["theta_log"])))
    B, C = (jax.lax.complex(p[f"{k}_re"]["weight"], p[f"{k}_im"]["weight"]) for k in ("B", "C"))
    h = eigenvalue * h + jnp.exp(p["gamma_log"]) * (x @ B)
    return h, (h @ C).real + p["D"] * x


def rate_readout(p, r, x, old, mix):
    r = LEAK * r + x @ p["W"]
    return r, r


def spike_readout(p, V, x, old, mix):
    V = LEAK * (V - sg(nn._readout.triangle_spike(V - 1.0))) + x @ p["W"]
    return V, nn._readout.triangle_spike(V - 1.0)


#: name -> (class, options, oracle, number of real states, parameters that are exact)
CELLS = {
    "ValinaRNNCell": (nn.ValinaRNNCell, {"activation": "tanh"}, vanilla, 1),
    "GRUCell": (nn.GRUCell, {}, gru, 1),
    "MGUCell": (nn.MGUCell, {}, mgu, 1),
    "LSTMCell": (nn.LSTMCell, {}, lstm, 2),
    "URLSTMCell": (nn.URLSTMCell, {}, urlstm, 2),
    "CFNCell": (nn.CFNCell, {}, cfn, 1),
    "MinimalRNNCell": (nn.MinimalRNNCell, {}, minimal, 1),
    "MiniGRU": (nn.MiniGRU, {}, mini_gru, 1),
    "MiniLSTM": (nn.MiniLSTM, {}, mini_lstm, 1),
    "LRUCell": (nn.LRUCell, {"max_phase": 1.0}, lru, 0),
    "LeakyRateReadout": (nn.LeakyRateReadout, {"tau": TAU * u.ms}, rate_readout, 1),
    "LeakySpikeReadout": (nn.LeakySpikeReadout, {"tau": TAU * u.ms}, spike_readout, 1),
}
#: Those without recurrent mixing: D-RTRL is BPTT.
EXACT = ("LRUCell", "LeakyRateReadout", "LeakySpikeReadout")


class Network(brainstate.nn.Module):
    """A cell under a linear readout."""

    def __init__(self, name):
        super().__init__()
        kind, options, *_ = CELLS[name]
        with brainstate.environ.context(dt=DT * u.ms):
            self.cell = kind(IN, N, **options)
        self.out = brainstate.nn.Linear(IN if name == "LRUCell" else N, OUT)

    def update(self, x):
        return self.out(self.cell(x))


def named(path):
    """The name of a parameter in the oracle: that of the layer, or of the parameter itself where
    the cell holds it.
    """
    return "out" if path[0] == "out" else path[1]


def step_of(name):
    cell = CELLS[name][2]

    def step(p, carry, x, old=keep, mix=keep):
        carry, out = cell(p, carry, x, old, mix)
        return carry, linear(p, "out", out)

    return step


def carry_of(name):
    if name == "LRUCell":
        return jnp.zeros((B, N), complex)
    states = CELLS[name][3]
    zeros = jnp.zeros((B, N))
    return zeros if states == 1 else (zeros,) * states
