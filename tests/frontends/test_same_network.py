"""One network, a GRU under a readout, written in brainstate, Flax NNX, Equinox and as a function:
the same gradients to 1e-10.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace

from .cells import IN, OUT, B, N, T, data, sample_loss

nnx = pytest.importorskip("flax.nnx")
eqx = pytest.importorskip("equinox")

ZERO = jnp.zeros((B, N))
NAMES = ("gates", "candidate", "out")
SHAPES = {"gates": (IN + N, 2 * N), "candidate": (IN + N, N), "out": (N, OUT)}


def weights():
    rng = np.random.default_rng(3)
    draw = lambda *shape: jnp.asarray(0.5 * rng.standard_normal(shape))
    return {name: (draw(*shape), draw(shape[1])) for name, shape in SHAPES.items()}


def gru(gates, candidate, h, x):
    """The equations, for any three linear maps."""
    r, z = jnp.split(jax.nn.sigmoid(gates(jnp.concatenate([x, h], -1))), 2, -1)
    return (1 - z) * h + z * jnp.tanh(candidate(jnp.concatenate([x, r * h], -1)))


def with_function(algorithm, xs, ys, **options):
    def cell(params, h, x):
        gates, candidate, out = ((lambda v, k=k: v @ params[k][0] + params[k][1]) for k in NAMES)
        h = gru(gates, candidate, h, x)
        return h, out(h)

    params = weights()
    learner = braintrace.compile(cell, algorithm, xs[0], params=params, carry=ZERO)
    found, _, info = learner.etrace_grad(
        params, learner.init(params, ZERO, traces=False), xs, ys, loss_fn=sample_loss, **options
    )
    return found, info


def with_brainstate(algorithm, xs, ys, **options):
    class Network(brainstate.nn.Module):
        def __init__(self):
            super().__init__()
            for name, (w, b) in weights().items():
                layer = brainstate.nn.Linear(*w.shape)
                layer.weight.value = {"weight": w, "bias": b}
                setattr(self, name, layer)

        def init_state(self, batch_size):
            self.h = brainstate.HiddenState(jnp.zeros((batch_size, N)))

        def update(self, x):
            self.h.value = gru(self.gates, self.candidate, self.h.value, x)
            return self.out(self.h.value)

    learner = braintrace.compile(Network(), algorithm, xs[0], batch_size=B)
    step = lambda x, y: sample_loss(learner(x), y)
    found, info = learner.etrace_grad(xs, ys, step_fn=step, return_info=True, **options)
    return {k: (found[k, "weight"]["weight"], found[k, "weight"]["bias"]) for k in NAMES}, info


def with_nnx(algorithm, xs, ys, **options):
    class Network(nnx.Module):
        def __init__(self, rngs):
            for name, (w, b) in weights().items():
                layer = nnx.Linear(*w.shape, param_dtype=jnp.float64, rngs=rngs)
                layer.kernel.set_value(w)
                layer.bias.set_value(b)
                setattr(self, name, layer)

        def __call__(self, h, x):
            h = gru(self.gates, self.candidate, h, x)
            return h, self.out(h)

    learner = braintrace.compile(Network(nnx.Rngs(0)), algorithm, xs[0], carry=ZERO)
    found, info = learner.etrace_grad(xs, ys, loss_fn=sample_loss, **options)
    return {k: (found[k]["kernel"].get_value(), found[k]["bias"].get_value()) for k in NAMES}, info


def with_equinox(algorithm, xs, ys, **options):
    class Network(eqx.Module):
        gates: eqx.nn.Linear
        candidate: eqx.nn.Linear
        out: eqx.nn.Linear

        def __init__(self):
            for name, (w, b) in weights().items():
                layer = eqx.nn.Linear(*w.shape, key=jax.random.key(0))
                setattr(self, name, eqx.tree_at(lambda m: (m.weight, m.bias), layer, (w.T, b)))

        def __call__(self, x, h):
            h = gru(self.gates, self.candidate, h, x)
            return h, self.out(h)

    model = Network()
    learner = braintrace.compile(model, algorithm, xs[0], carry=ZERO, vmap=True)
    found, _, info = learner.etrace_grad(
        model, learner.init(model, ZERO), xs, ys, loss_fn=sample_loss, **options
    )
    return {k: (getattr(found, k).weight.T, getattr(found, k).bias) for k in NAMES}, info


@pytest.mark.parametrize("algorithm", ["d_rtrl", "eprop"])
def test_the_same_gradients(algorithm):
    xs, ys = data()
    reset = jnp.zeros((T, B), bool).at[2, 1].set(True)
    options = {
        "window": 3,
        "mask": jnp.arange(T)[:, None] < jnp.array([7, 4, 5, 1]),
        "reset": reset,
    }
    expected, _ = with_function(algorithm, xs, ys, **options)
    assert all(jnp.abs(v).max() > 1e-3 for v in jax.tree.leaves(expected))
    for other in (with_brainstate, with_nnx, with_equinox):
        found, _ = other(algorithm, xs, ys, **options)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    without, _ = with_nnx(
        algorithm, xs, ys, **{**options, "reset": None}
    )  # control: options reach the values
    assert jnp.abs(without["gates"][0] - expected["gates"][0]).max() > 1e-6


@pytest.mark.parametrize("algorithm", ["d_rtrl", "sk_rtrl"])
def test_the_same_reports(algorithm):
    """Bounds of each step, and the fidelity of each parameter's gradient."""
    xs, ys = data()
    options = {"mask": jnp.arange(T)[:, None] < jnp.array([7, 4, 5, 1]), "fidelity": True}

    def reports(build):
        gradients, info = build(algorithm, xs, ys, **options)
        rows = sorted((float(f.cosine), float(f.relative_error)) for f in info.fidelity.values())
        assert len(rows) == 6
        return jax.tree.leaves(gradients), rows, info.by_step

    _, expected, bounds = reports(with_function)
    assert (bounds is None) == (algorithm == "d_rtrl")
    assert any(error > 1e-3 for _, error in expected)  # control
    for other in (with_brainstate, with_nnx, with_equinox):
        _, rows, of_steps = reports(other)
        np.testing.assert_allclose(rows, expected, rtol=1e-8, atol=1e-10)
        if bounds is not None:
            assert bounds.error.shape == bounds.informative.shape == (T, B)
            np.testing.assert_allclose(of_steps, bounds, rtol=1e-8, atol=1e-10)
