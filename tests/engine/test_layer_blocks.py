"""Traces of a whole layer, moved block by block: the number and the size of blocks change
nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace._compare import CELLS
from braintrace.core.traces import _within_layer

I, N, O, B, T = 3, 5, 2, 4, 10


@pytest.fixture(params=[8, 200], ids="blocks of {} bytes".format)
def blocks(request, monkeypatch):
    monkeypatch.setattr(_within_layer, "_IN_CACHE", request.param)
    monkeypatch.setattr(_within_layer, "_FRACTION", 1 << 30)
    monkeypatch.setattr(_within_layer, "_FEWEST_ROWS", 1)
    monkeypatch.setattr(_within_layer, "_BLOCKS", 1)
    return request.param


def loss(out, target):
    return jnp.mean((out - target) ** 2)


def difference(a, b):
    return max(
        jax.tree.leaves(
            jax.tree.map(lambda a, b: float(jnp.abs(a - b).max() / jnp.abs(b).max()), a, b)
        )
    )


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_blocks_of_any_size_give_the_gradient_of_bptt(cell, window, blocks):
    model = CELLS[cell](I, N, O, B)
    params, carry = jax.tree.map(lambda v: v.astype(float), (model.params, model.carry))
    random = np.random.default_rng(0)
    xs, ys = (jnp.asarray(random.normal(size=(T, B, n))) for n in (I, O))

    def total(params):
        def one(carry, at):
            carry, out = model.cell(params, carry, at[0])
            return carry, loss(out, at[1])

        return jax.lax.scan(one, carry, (xs, ys))[1].sum()

    def gradient(algorithm):
        learner = braintrace.compile(model.cell, algorithm, xs[0], params=params, carry=carry)
        state, options = (
            learner.init(params, carry),
            {"loss_fn": loss, "reduction": "sum", "window": window},
        )
        first, state, _ = learner.etrace_grad(params, state, xs[:6], ys[:6], **options)
        return jax.tree.map(
            jnp.add, first, learner.etrace_grad(params, state, xs[6:], ys[6:], **options)[0]
        )

    bptt = jax.grad(total)(params)
    assert difference(gradient("ostl_recurrent"), bptt) < 1e-13
    if window == 3:
        assert (
            difference(gradient("d_rtrl"), bptt) > 1e-3
        )  # control: what the traces of a layer keep beside matters


def test_a_block_holds_whole_samples_or_a_part_of_one(monkeypatch):
    monkeypatch.setattr(_within_layer, "_IN_CACHE", 100)
    assert [_within_layer.samples_at_once(6, each) for each in (1, 30, 45, 60, 1000)] == [
        6,
        3,
        2,
        1,
        1,
    ]


def test_mixing_is_a_product_for_each_sample(blocks):
    random = np.random.default_rng(1)
    trace, rows, signal = (
        jnp.asarray(random.normal(size=s)) for s in ((B, 5, 3, 7), (B, 5, 5), (B, 5))
    )
    mixed, found = _within_layer.mix(trace, rows, signal)
    np.testing.assert_allclose(
        mixed, np.einsum("bjk,bkio->bjio", rows, trace), rtol=1e-13, atol=1e-13
    )
    np.testing.assert_allclose(
        found, np.einsum("bk,bkio->bio", signal, trace), rtol=1e-13, atol=1e-13
    )
    assert not np.allclose(mixed, np.einsum("bkj,bkio->bjio", rows, trace))  # control


def lif(coupled):
    """Two states; with `coupled`, neurons move each other."""

    def cell(p, carry, x):
        v, g = carry
        z = jax.nn.sigmoid(v)
        g = 0.8 * g + x @ p["W"] + (z @ p["U"] if coupled else 0.0)
        v = p["leak"] * v + 0.5 * g - z
        return (v, g), v @ p["o"]

    random = np.random.default_rng(2)
    shapes = {"W": (I, N), "U": (N, N), "leak": (N,), "o": (N, O)}
    return cell, {
        k: jnp.asarray(random.normal(size=s)) / 2 for k, s in shapes.items() if coupled or k != "U"
    }


@pytest.mark.parametrize("window", [1, 3])
def test_a_layer_whose_neurons_do_not_meet_has_the_traces_of_its_neurons_alone(window):
    carry = (jnp.zeros((B, N)),) * 2
    random = np.random.default_rng(3)
    xs, ys = (jnp.asarray(random.normal(size=(T, B, n))) for n in (I, O))

    def compiled(algorithm, coupled):
        cell, params = lif(coupled)
        return braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry)

    def held(algorithm, coupled):
        return compiled(algorithm, coupled).memory_plan(T).traces

    cell, params = lif(False)

    def total(params):
        def one(carry, at):
            carry, out = cell(params, carry, at[0])
            return carry, loss(out, at[1])

        return jax.lax.scan(one, carry, (xs, ys))[1].sum()

    learner = compiled("ostl_recurrent", False)
    state, options = (
        learner.init(params, carry),
        {"loss_fn": loss, "reduction": "sum", "window": window},
    )
    gradient = learner.etrace_grad(params, state, xs, ys, **options)[0]
    assert difference(gradient, jax.grad(total)(params)) < 1e-13
    assert (
        held("ostl_recurrent", False) == held("d_rtrl", False) == B * N * (2 * I + 1) * 8
    )  # the leak acts on v alone
    assert (
        held("ostl_recurrent", True) == 2 * N * B * (I + N + 1) * N * 8
    )  # control: neurons that meet


@pytest.mark.parametrize("samples", [N, N - 1], ids=["as many samples as neurons", "fewer"])
@pytest.mark.parametrize("window", [1, 3])
def test_samples_of_a_bias_are_found_where_the_step_has_them(window, samples):
    def cell(p, h, x):  # neurons along axis 0
        h = 0.9 * h + jnp.tanh(p["W"] @ x.T + p["U"] @ h.T + p["b"][:, None]).T
        return h, h @ p["o"]

    random = np.random.default_rng(4)
    shapes = {"W": (N, I), "U": (N, N), "b": (N,), "o": (N, O)}
    params = {k: jnp.asarray(random.normal(size=s)) / 2 for k, s in shapes.items()}
    xs, ys = (jnp.asarray(random.normal(size=(T, samples, n))) for n in (I, O))
    carry = jnp.zeros((samples, N))

    def total(params):
        def one(carry, at):
            carry, out = cell(params, carry, at[0])
            return carry, loss(out, at[1])

        return jax.lax.scan(one, carry, (xs, ys))[1].sum()

    def gradient(algorithm):
        learner = braintrace.compile(cell, algorithm, xs[0], params=params, carry=carry)
        state, options = (
            learner.init(params, carry),
            {"loss_fn": loss, "reduction": "sum", "window": window},
        )
        return learner.etrace_grad(params, state, xs, ys, **options)[0]

    assert difference(gradient("ostl_recurrent"), jax.grad(total)(params)) < 1e-13
    assert difference(gradient("d_rtrl"), jax.grad(total)(params)) > 1e-3  # control
