"""Layers of the PyPI package braintrace with random weights, and what they gave: `recorded.npz` and
`network.msgpack`, which `python tests/nn/package_layers.py` writes where that package is installed.
"""

from pathlib import Path

import brainevent
import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np

import braintrace
from braintrace import nn

RECORDED = Path(__file__).parent / "recorded.npz"
NETWORK = Path(__file__).parent / "network.msgpack"
IN, N, T, B = 2, 3, 3, 2
MATRIX = np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]])


def sparse_matrix():
    return brainevent.CSR.fromdense(MATRIX)


#: name -> (how it is made, the shape of its input)
LAYERS = {
    "ValinaRNNCell": (lambda: nn.ValinaRNNCell(IN, N), (B, IN)),
    "GRUCell": (lambda: nn.GRUCell(IN, N), (B, IN)),
    "MGUCell": (lambda: nn.MGUCell(IN, N), (B, IN)),
    "LSTMCell": (lambda: nn.LSTMCell(IN, N), (B, IN)),
    "URLSTMCell": (lambda: nn.URLSTMCell(IN, N), (B, IN)),
    "CFNCell": (lambda: nn.CFNCell(IN, N), (B, IN)),
    "MinimalRNNCell": (lambda: nn.MinimalRNNCell(IN, N), (B, IN)),
    "MiniGRU": (lambda: nn.MiniGRU(IN, N), (B, IN)),
    "MiniLSTM": (lambda: nn.MiniLSTM(IN, N), (B, IN)),
    "LRUCell": (lambda: nn.LRUCell(IN, N), (B, IN)),
    "LeakyRateReadout": (lambda: nn.LeakyRateReadout(IN, N), (B, IN)),
    "Linear": (lambda: nn.Linear(IN, N), (B, IN)),
    "SignedWLinear": (lambda: nn.SignedWLinear(IN, N), (B, IN)),
    "ScaledWSLinear": (lambda: nn.ScaledWSLinear(IN, N), (B, IN)),
    "SparseLinear": (lambda: nn.SparseLinear(sparse_matrix(), b_init=jnp.zeros(N)), (B, IN)),
    "LoRA": (lambda: nn.LoRA(IN, 2, N), (B, IN)),
    "GroupedLinear": (lambda: nn.GroupedLinear(2, IN, N), (B, 2, IN)),
    "Embedding": (lambda: nn.Embedding(IN, N), None),
    "Conv1d": (lambda: nn.Conv1d((4, IN), N, 3, b_init=jnp.zeros((1, N))), (B, 4, IN)),
    "Conv2d": (lambda: nn.Conv2d((3, 3, IN), N, 2), (B, 3, 3, IN)),
    "Conv3d": (lambda: nn.Conv3d((2, 2, 2, IN), N, 2), (B, 2, 2, 2, IN)),
}


class Network(brainstate.nn.Module):
    """Layers in a list, as users hold them, and a parameter with a unit."""

    def __init__(self):
        super().__init__()
        self.layers = [nn.GRUCell(IN, N), nn.LSTMCell(N, N)]
        self.norm = nn.BatchNorm0d(N)
        self.scale = brainstate.ParamState(jnp.ones(N) * u.mV)
        self.readout = nn.LeakyRateReadout(N, 2)

    def update(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.readout(self.norm(x) * (self.scale.value / u.mV))


def made(build):
    """A layer with its states, in the precision and with the time step of the record."""
    with brainstate.environ.context(dt=1.0 * u.ms, fit=False):
        model = build()
        brainstate.nn.init_all_states(model, batch_size=B)
    return model


def outputs(model, xs):
    with brainstate.environ.context(dt=1.0 * u.ms, fit=False):
        return np.stack([np.asarray(model(x)) for x in jnp.asarray(xs)])


def weights_of(model):
    """Parameters and statistics, by path."""
    return model.states(brainstate.LongTermState)


def drawn(build, shape, rng):
    """A layer with random weights, its inputs and outputs."""
    model = made(build)
    random = lambda v: v + jnp.asarray(0.5 * rng.standard_normal(np.shape(v))).astype(v.dtype)
    for state in weights_of(model).values():
        if isinstance(state, brainstate.ParamState) and not hasattr(state.value, "unit"):
            state.value = jax.tree.map(random, state.value)
    xs = rng.integers(IN, size=(T, B)) if shape is None else rng.standard_normal((T, *shape))
    return model, xs, outputs(model, xs)


#: Layers of 40 inputs and 60 outputs, whose default weights are compared.
INITIAL = {
    **dict.fromkeys(list(LAYERS)[:14], (40, 60)),
    "LoRA": (40, 8, 60),
    "GroupedLinear": (5, 40, 60),
    "Embedding": (40, 60),
    "Conv1d": ((4, 6), 60, 3),
}


def spread(name, draws=8):
    """Of each initial weight: standard deviation, kurtosis (3 for a normal, 2.4 for a truncated
    normal, 1.8 for a uniform distribution), and how many numbers they are of.
    """
    brainstate.random.seed(1)
    with brainstate.environ.context(dt=1.0 * u.ms):
        layers = [getattr(nn, name)(*INITIAL[name]) for _ in range(draws)]
    values = [
        jax.tree_util.tree_leaves_with_path(
            {".".join(map(str, path)): state.value for path, state in weights_of(layer).items()}
        )
        for layer in layers
    ]
    found = {}
    for leaves in zip(*values, strict=True):
        drawn = np.stack([np.asarray(value) for _, value in leaves])
        deviation = drawn.std()
        kurtosis = ((drawn - drawn.mean()) ** 4).mean() / max(deviation, 1e-9) ** 4
        found[jax.tree_util.keystr(leaves[0][0])] = np.array([deviation, kurtosis, drawn.size])
    return found


def record():
    import braintools

    rng, found = np.random.default_rng(0), {}
    for name, (build, shape) in (LAYERS | {"Network": (Network, (B, IN))}).items():
        model, xs, out = drawn(build, shape, rng)
        found |= {f"{name}/xs": xs, f"{name}/out": out}
        if name == "Network":
            braintools.file.msgpack_save(NETWORK, weights_of(model))
        else:
            for path, state in weights_of(model).items():
                value = state.value if isinstance(state.value, dict) else {"": state.value}
                at = ".".join(map(str, path))
                found |= {f"{name}/{at}/{key}": np.asarray(v) for key, v in value.items()}
    for name in INITIAL:
        found |= {f"{name}/initial/{weight}": value for weight, value in spread(name).items()}
    np.savez_compressed(RECORDED, **found)


if __name__ == "__main__":
    assert braintrace.__version__.startswith("0.2"), "this is not the PyPI package"
    brainevent.csrmm_p.set_default("cpu", "jax_raw")
    brainstate.environ.set(precision=64)
    record()
