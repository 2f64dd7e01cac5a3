"""Cells of `brainstate.nn` against two-evaluation oracles written out in plain JAX, and against the
functional front end.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn
from jax import lax
from jax.nn import sigmoid

import braintrace
from zoo._case import keep, two_evaluations

from .models import (
    B,
    N,
    Readout,
    assert_close,
    data,
    hidden,
    reset_learner,
    sample_loss,
    step_by_step,
    total_loss,
)


def linear(p, name, v):
    return v @ p[name]["weight"] + p[name]["bias"]


def gru(p, h, x, old=keep, mix=keep):
    r, z = jnp.split(sigmoid(linear(p, "Wrz", mix(jnp.concatenate([x, old(h)], -1)))), 2, -1)
    n = jnp.tanh(linear(p, "Wh", mix(jnp.concatenate([x, r * old(h)], -1))))
    h = (1 - z) * h + z * n
    return h, linear(p, "out", h)


def lstm(p, carry, x, old=keep, mix=keep):
    h, c = carry
    i, g, f, o = jnp.split(linear(p, "W", mix(jnp.concatenate([x, old(h)], -1))), 4, -1)
    c = sigmoid(f + 1.0) * c + sigmoid(i) * jnp.tanh(g)
    h = sigmoid(o) * jnp.tanh(c)
    return (h, c), linear(p, "out", h)


def mgu(p, h, x, old=keep, mix=keep):
    f = sigmoid(linear(p, "Wf", mix(jnp.concatenate([x, old(h)], -1))))
    n = jnp.tanh(linear(p, "Wh", mix(jnp.concatenate([x, f * old(h)], -1))))
    h = (1 - f) * h + f * n
    return h, linear(p, "out", h)


def vanilla(p, h, x, old=keep, mix=keep):
    h = jnp.tanh(linear(p, "W", mix(jnp.concatenate([x, old(h)], -1))))
    return h, linear(p, "out", h)


def tanh_cell(n_in, n):
    return nn.ValinaRNNCell(n_in, n, activation="tanh")


zeros = jnp.zeros((B, N))
CELLS = {
    "gru": (nn.GRUCell, gru, zeros),
    "lstm": (nn.LSTMCell, lstm, (zeros, zeros)),
    "mgu": (nn.MGUCell, mgu, zeros),
    "vanilla": (tanh_cell, vanilla, zeros),
}


@pytest.fixture(params=CELLS, scope="module")
def case(request):
    """A learner, its data, and the oracle's and BPTT's gradients keyed like the model's
    parameters.
    """
    cell, step, carry = CELLS[request.param]
    brainstate.random.seed(0)
    model = Readout(cell)
    states = model.states(brainstate.ParamState)
    names = {path: path[-2] for path in states}
    params = {names[path]: state.value for path, state in states.items()}
    carry = jax.tree.map(lambda v: jnp.zeros(v.shape), carry)
    xs, ys = data()

    def total(function, params):
        _, outs = lax.scan(lambda c, x: function(params, c, x), carry, xs)
        return jnp.sum(jax.vmap(sample_loss)(outs, ys))

    def keyed(function):
        found = jax.grad(lambda p: total(function, p))(params)
        return {path: found[name] for path, name in names.items()}

    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    return learner, xs, ys, keyed(two_evaluations(step)), keyed(step), (step, params, carry)


def test_step_by_step_equals_the_oracle(case):
    learner, xs, ys, oracle, bptt, _ = case
    reset_learner(learner)
    assert_close(step_by_step(learner, xs, ys), oracle)
    assert learner.running_index.value == len(xs)
    # control: the oracle is another gradient than BPTT, and no gradient is dead
    far = [
        jnp.abs(a - b).max() > 1e-3
        for a, b in zip(jax.tree.leaves(oracle), jax.tree.leaves(bptt), strict=True)
    ]
    assert any(far)
    assert all(jnp.abs(v).max() > 1e-3 for v in jax.tree.leaves(oracle))


@pytest.mark.parametrize("window", [1, 3, None])
def test_windows_equal_the_oracle(case, window):
    learner, xs, ys, oracle, _, _ = case
    reset_learner(learner)
    step_fn = lambda x, y: total_loss(learner(x), y)
    found, losses = learner.etrace_grad(
        xs, ys, step_fn=step_fn, chunk_size=window, reduction="sum", return_value=True
    )
    assert_close(found, oracle)
    assert losses.shape == (len(xs),)
    end = hidden(learner)
    reset_learner(learner)
    step_by_step(learner, xs, ys)
    assert_close(end, hidden(learner))


def test_equals_the_functional_front_end(case):
    learner, xs, ys, _, _, (step, params, carry) = case
    other = braintrace.compile(step, "d_rtrl", xs[0], params=params, carry=carry)
    expected, *_ = other.etrace_grad(
        params, other.init(params, carry), xs, ys, loss_fn=total_loss, window=3
    )
    reset_learner(learner)
    found = learner.etrace_grad(xs, ys, step_fn=lambda x, y: total_loss(learner(x), y), window=3)
    assert_close(found, {path: expected[path[-2]] for path in found})


def test_multi_step_is_bptt_inside_the_window(case):
    learner, xs, ys, oracle, bptt, _ = case
    for method, expected in (("single-step", oracle), ("multi-step", bptt)):
        brainstate.nn.init_all_states(learner.model, batch_size=B)
        other = braintrace.D_RTRL(learner.model, vjp_method=method).compile_graph(xs[0])
        gradient = brainstate.transform.grad(
            lambda other=other: jnp.sum(
                jax.vmap(sample_loss)(other(braintrace.MultiStepData(xs)), ys)
            ),
            learner.model.states(brainstate.ParamState),
        )
        assert_close(gradient(), expected)
        assert other.running_index.value == len(xs)
    learner.compile_graph(xs[0])  # the shared learner gets the states that init_all_states made


def test_marked_single_steps_are_bare_arrays(case):
    learner, xs, *_ = case
    reset_learner(learner)
    bare = learner(xs[0])
    reset_learner(learner)
    np.testing.assert_array_equal(learner(braintrace.SingleStepData(xs[0])), bare)
