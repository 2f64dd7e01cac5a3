"""The recurrent cells and readouts against their equations and two-evaluation oracles, written out
in plain JAX.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import nn
from braintrace.checks import bptt_gradient
from zoo._case import two_evaluations

from .oracles import CELLS, EXACT, IN, OUT, B, N, Network, T, carry_of, named, step_of


def loss(out, target):
    return jnp.sum((out - target) ** 2)


def given(name):
    """Model, its weights by path, the oracle's parameters, and data."""
    brainstate.random.seed(1)
    model = Network(name)
    weights = model.states(brainstate.ParamState)
    rng = np.random.default_rng(2)
    for state in weights.values():  # biases that are not zero
        state.value = jax.tree.map(lambda v: v + 0.1 * rng.standard_normal(v.shape), state.value)
    params = {named(path): state.value for path, state in weights.items()}
    xs, ys = (
        jnp.asarray(2 * rng.standard_normal((T, B, IN))),
        jnp.asarray(rng.standard_normal((T, B, OUT))),
    )
    return model, weights, params, xs, ys


@pytest.mark.parametrize("name", CELLS)
def test_gradients(name):
    model, weights, params, xs, ys = given(name)
    carry, step = carry_of(name), step_of(name)
    options = {"loss_fn": loss, "reduction": "sum"}
    right = bptt_gradient(two_evaluations(step), params, carry, xs, ys, **options)[0]
    bptt, losses = bptt_gradient(step, params, carry, xs, ys, **options)
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    assert all(float(jnp.abs(v).max()) > 1e-3 for v in jax.tree.leaves(right))  # not dead
    far = [
        float(jnp.abs(a - b).max())
        for a, b in zip(jax.tree.leaves(right), jax.tree.leaves(bptt), strict=True)
    ]
    assert (max(far) < 1e-12) == (name in EXACT), (
        far
    )  # control: the oracle is another gradient than BPTT

    def check(found):
        got = {named(path): value for path, value in found.items()}
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), got, right
        )

    for window in (1, 3):
        learner.reset_state(model=True)
        found, values = learner.etrace_grad(
            xs,
            ys,
            step_fn=lambda x, y: loss(learner(x), y),
            chunk_size=window,
            reduction="sum",
            return_value=True,
        )
        check(found)
        np.testing.assert_allclose(values, losses, rtol=1e-10)  # the equation is the cell's
    learner.reset_state(model=True)
    gradient = brainstate.transform.jit(
        brainstate.transform.grad(lambda x, y: loss(learner(x), y), weights)
    )
    found = [gradient(x, y) for x, y in zip(xs, ys, strict=True)]
    check(jax.tree.map(lambda *v: sum(v), *found))


@pytest.mark.parametrize("name", EXACT)
def test_the_certificate_says_exact(name):
    model, _, _, xs, _ = given(name)
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    assert "approximate" not in str(learner.report)
    other = braintrace.compile(Network("GRUCell"), "d_rtrl", xs[0], batch_size=B)
    assert "approximate" in str(other.report)  # control


@pytest.mark.parametrize("name", ["GRUCell", "LSTMCell", "CFNCell", "MiniGRU", "LRUCell"])
def test_one_sample_without_a_batch(name):
    model, _, _, xs, _ = given(name)
    brainstate.nn.init_all_states(model)
    assert model(xs[0, 0]).shape == (OUT,)


@pytest.mark.parametrize("name", [n for n in CELLS if n not in ("LRUCell",)])
def test_sizes(name):
    kind, options, *_ = CELLS[name]
    with brainstate.environ.context(dt=1.0 * options["tau"].unit if "tau" in options else None):
        cell = kind(in_size=(IN,), out_size=(N,), **options)
        assert (tuple(cell.in_size), tuple(cell.out_size)) == ((IN,), (N,))
        for wrong in (0, (2, 3), 1.5):
            with pytest.raises((braintrace.UsageError, TypeError), match=r"in_size|not iterable"):
                kind(wrong, N, **options)


def test_arguments():
    with pytest.raises(braintrace.UsageError, match="Unknown activation"):
        nn.CFNCell(3, 4, activation="tanhh")
    with pytest.raises(braintrace.UsageError, match="ring"):
        nn.LRUCell(3, 4, r_min=0.9, r_max=0.5)
    with pytest.raises(braintrace.UsageError, match="time step"):
        nn.LeakyRateReadout(3, 4)
    with brainstate.environ.context(dt=0.1), pytest.raises(braintrace.UsageError, match="units"):
        nn.LeakyRateReadout(3, 4)
    with brainstate.environ.context(dt=0.1), pytest.raises(braintrace.UsageError, match="reset"):
        nn.LeakySpikeReadout(3, 4, tau=5.0, spk_reset="none")
    cell = nn.MinimalRNNCell(3, 4, phi=lambda x: jnp.ones((*x.shape[:-1], 4)))
    cell.init_state(2)
    assert cell(jnp.ones((2, 3))).shape == (2, 4)
    assert len(cell.states(brainstate.ParamState)) == 1


def test_hard_reset():
    with brainstate.environ.context(dt=1.0):
        readout = nn.LeakySpikeReadout(
            1,
            1,
            tau=5.0,
            spk_reset="hard",
            V_initializer=jnp.asarray([3.0]),
            w_init=jnp.ones((1, 1)),
        )
    readout.init_state()
    readout(jnp.zeros(1))
    assert readout.V.value == 0.0  # soft would leave (3 - 1) exp(-1/5)
    soft = nn.LeakySpikeReadout
    with brainstate.environ.context(dt=1.0):
        readout = soft(1, 1, tau=5.0, V_initializer=jnp.asarray([3.0]), w_init=jnp.ones((1, 1)))
    readout.init_state()
    readout(jnp.zeros(1))
    np.testing.assert_allclose(readout.V.value, 2 * np.exp(-0.2))


def test_eigenvalues_of_the_lru_lie_in_the_ring():
    cell = nn.LRUCell(2, 500, r_min=0.5, r_max=0.9, max_phase=0.3)
    size, phase = np.exp(-np.exp(cell.nu_log.value)), np.exp(cell.theta_log.value)
    assert 0.5 <= size.min() < 0.55 and 0.85 < size.max() <= 0.9
    assert phase.min() >= 0 and phase.max() <= 0.3
    np.testing.assert_allclose(np.exp(cell.gamma_log.value) ** 2, 1 - size**2)
