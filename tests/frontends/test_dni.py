"""Synthetic gradients through every front end: one estimator, that a reset does not take away."""

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import braintrace
from braintrace import SyntheticGradient, UsageError, train_synthetic_gradient

T, B, I, N = 6, 2, 3, 4
random = np.random.default_rng(0)
W, U = random.normal(size=(I, N)), 0.5 * random.normal(size=(N, N))
XS, YS = random.normal(size=(T, B, I)), random.normal(size=(T, B, N))
GIVEN = {"chunk_size": 2, "lr": 0.1, "epochs": 3}


def loss(out, y):
    return ((out - y) ** 2).sum(-1)


def by_function():
    cell = lambda p, h, x: ((h := jnp.tanh(h @ p["U"] + x @ p["W"])), h)
    params, h = {"W": jnp.asarray(W), "U": jnp.asarray(U)}, jnp.zeros((B, N))
    learner = braintrace.compile(cell, "dni", XS[0], params=params, carry=h)
    state = learner.init(params, h)
    state, errors = train_synthetic_gradient(learner, params, state, XS, YS, loss_fn=loss, **GIVEN)
    return learner, params, state, errors


def numbers():
    *_, state, errors = by_function()
    return [np.asarray(v) for v in (*SyntheticGradient.weights(state), errors)]


def check(weights, errors):
    for found, right in zip([*weights, errors], numbers(), strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-12)
    assert abs(weights[0]).max() > 1e-3


class Equinox(eqx.Module):
    W: jax.Array
    U: jax.Array

    def __call__(self, h, x):
        h = jnp.tanh(h @ self.U + x @ self.W)
        return h, h


class NNX(nnx.Module):
    def __init__(self):
        self.W, self.U = nnx.Param(jnp.asarray(W)), nnx.Param(jnp.asarray(U))

    def __call__(self, h, x):
        h = jnp.tanh(h @ self.U[...] + x @ self.W[...])
        return h, h


class Brainstate(brainstate.nn.Module):
    def __init__(self):
        super().__init__()
        self.W, self.U = (brainstate.ParamState(jnp.asarray(v)) for v in (W, U))
        self.h = brainstate.HiddenState(jnp.zeros((B, N)))

    def update(self, x):
        self.h.value = jnp.tanh(self.h.value @ self.U.value + x @ self.W.value)
        return self.h.value


def test_equinox():
    model, h = Equinox(jnp.asarray(W), jnp.asarray(U)), jnp.zeros((B, N))
    call = lambda model, h, x: model(h, x)
    learner = braintrace.compile(model, "dni", XS[0], carry=h, call=call)
    state = learner.init(model, h)
    state, errors = train_synthetic_gradient(learner, model, state, XS, YS, loss_fn=loss, **GIVEN)
    check(SyntheticGradient.weights(state), errors)


def test_nnx():
    learner = braintrace.compile(NNX(), "dni", XS[0], carry=jnp.zeros((B, N)))
    errors = train_synthetic_gradient(learner, XS, YS, loss_fn=loss, **GIVEN)
    weights = SyntheticGradient.weights(learner.traces.get_value())
    check(weights, errors)
    learner.etrace_grad(XS, YS, loss_fn=loss)
    learner.reset_state(model=True)
    after = SyntheticGradient.weights(learner.traces.get_value())
    assert all((a == b).all() for a, b in zip(after, weights, strict=True))


def test_brainstate():
    learner = braintrace.compile(Brainstate(), braintrace.DNI, XS[0], batch_size=B)
    assert learner.group_signal_shapes() == {0: (B, N, 1)}
    learner.attach_synthesizer(SyntheticGradient(learner.group_signal_shapes()))
    errors = train_synthetic_gradient(learner, XS, YS, loss_fn=loss, **GIVEN)
    weights = SyntheticGradient.weights(learner.etrace.value)
    check(weights, errors)
    found = learner.etrace_grad(XS, YS, loss_fn=loss, reduction="sum")
    core, params, state, _ = by_function()
    right = core.etrace_grad(params, state, XS, YS, loss_fn=loss, reduction="sum")[0]
    for name in "WU":
        np.testing.assert_allclose(found[(name,)], right[name], rtol=0, atol=1e-12)
    learner.init_etrace_state()
    learner.reset_state(model=True)
    after = SyntheticGradient.weights(learner.etrace.value)
    assert all((a == b).all() for a, b in zip(after, weights, strict=True))
    learner.attach_synthesizer(SyntheticGradient(scale=0.5))  # begins anew
    assert abs(SyntheticGradient.weights(learner.etrace.value)[0] - weights[0]).max() > 1e-3
    with pytest.raises(UsageError, match="do not fit"):
        learner.attach_synthesizer(SyntheticGradient(hidden_width=3))


def test_before_it_is_compiled_any_form_is_attached():
    learner = braintrace.DNI(Brainstate())
    learner.attach_synthesizer(SyntheticGradient(hidden_width=3))
    learner.compile_graph(jnp.asarray(XS[0]))
    assert len(SyntheticGradient.weights(learner.etrace.value)) == 4


def test_windows_of_a_multi_step_learner():
    """M stands at the exit of each window, as at that of the functional learner's."""
    learner = braintrace.compile(
        Brainstate(), braintrace.DNI, XS[0], batch_size=B, vjp_method="multi-step"
    )
    learner.attach_synthesizer(SyntheticGradient(scale=0.5))
    core, params, state, _ = by_function()
    weights = SyntheticGradient.weights(learner.etrace.value)
    state = SyntheticGradient.placed(core.init(params, jnp.zeros((B, N))), weights)

    def whole(params):
        outs = core.update_window(params, state, XS[:3], full=True)[1]
        return jax.vmap(loss)(outs, YS[:3]).sum()

    right = jax.grad(whole)(params)
    found = learner.etrace_grad(XS[:3], YS[:3], loss_fn=loss, chunk_size=3, reduction="sum")
    for name in "WU":
        np.testing.assert_allclose(found[(name,)], right[name], rtol=0, atol=1e-12)
