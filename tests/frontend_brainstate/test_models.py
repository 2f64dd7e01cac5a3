"""Kinds of models: every one of them step by step, in windows, mapped over samples."""

import brainpy.state as bp
import brainstate
import braintools
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn

import braintrace

from .models import (
    IN,
    OUT,
    B,
    Convolved,
    Dropped,
    Embedded,
    N,
    Normalised,
    T,
    assert_close,
    data,
    hidden,
    reset_learner,
    sample_loss,
    step_by_step,
    total_loss,
)


class Spiking(nn.Module):
    """Exponential synapses, recurrent, into neurons with units; the weights are conductances."""

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron(N, tau=10.0 * u.ms, V_th=0.1 * u.mV, R=1.0 * u.ohm)
        init = braintools.init
        comm = nn.Linear(
            IN + N, N, w_init=init.KaimingNormal(unit=u.mS), b_init=init.Constant(0.01 * u.mS)
        )
        self.synapse = bp.AlignPostProj(
            comm=comm,
            syn=bp.Expon.desc(N, tau=5.0 * u.ms),
            out=bp.CUBA.desc(scale=u.volt),
            post=self.neuron,
        )
        self.out = nn.Linear(N, OUT)

    def update(self, x):
        self.synapse(jnp.concatenate([jnp.abs(x), self.neuron.get_spike()], axis=-1))
        self.neuron()
        return self.out(self.neuron.get_spike())


def stacked():
    return nn.Sequential(
        nn.Linear(IN, N), nn.GRUCell(N, N), nn.Tanh(), nn.LSTMCell(N, IN), nn.Linear(IN, OUT)
    )


MODELS = {
    "lif": (lambda: Spiking(bp.LIF), ()),
    "alif": (lambda: Spiking(bp.ALIF), ()),
    "conv": (Convolved, (4, 4, 2)),
    "embedding": (Embedded, None),
    "random": (Dropped, ()),
    "statistics": (Normalised, ()),
    "layers": (stacked, ()),
}


@pytest.fixture(autouse=True)
def surroundings():
    with brainstate.environ.context(dt=1.0 * u.ms, fit=True):
        yield


def example(name):
    make, shape = MODELS[name]
    xs, ys = data(integer=True) if shape is None else data(*shape)
    brainstate.random.seed(0)
    return make(), xs, ys


@pytest.mark.parametrize("name", MODELS)
def test_windows_equal_steps(name):
    model, xs, ys = example(name)
    learner = braintrace.compile(model, braintrace.D_RTRL, xs[0], batch_size=B)
    reset_learner(learner)
    expected = step_by_step(learner, xs, ys)
    end = hidden(learner)
    assert all(jnp.abs(v).max() > 0 for v in jax.tree.leaves(expected))
    for window in (1, 3):
        reset_learner(learner)
        found = learner.etrace_grad(
            xs, ys, step_fn=lambda x, y: total_loss(learner(x), y), window=window, reduction="sum"
        )
        assert_close(found, expected)
        assert_close(hidden(learner), end)


@pytest.mark.parametrize("name", ["lif", "conv", "embedding"])
def test_mapped_equals_batched(name):
    model, xs, ys = example(name)
    learner = braintrace.compile(model, "D_rtrl", xs[0], batch_size=B)
    expected = step_by_step(learner, xs, ys)
    mapped = braintrace.compile(example(name)[0], "d_RTRL", xs[0], batch_size=B, vmap=True)
    assert_close(step_by_step(mapped, xs, ys), expected)
    mapped.reset_state(B, model=True)
    found = mapped.etrace_grad(
        xs, ys, step_fn=lambda x, y: sample_loss(mapped(x), y), reduction="sum", window=3
    )
    assert_close(found, expected)


def test_mapped_samples_draw_their_own_numbers():
    model, *_ = example("random")
    learner = braintrace.compile(model, "d_rtrl", jnp.ones((B, IN)), vmap=True)
    out = learner(jnp.ones((B, IN)))
    assert len(np.unique(np.asarray(out)[:, 0])) > 1
    before = brainstate.random.DEFAULT.value
    learner(jnp.ones((B, IN)))
    assert jnp.any(
        jax.random.key_data(before) != jax.random.key_data(brainstate.random.DEFAULT.value)
    )


def test_units_of_gradients_and_traces():
    model, xs, ys = example("lif")
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    found = learner.etrace_grad(xs, ys, step_fn=lambda x, y: total_loss(learner(x), y))
    path = ("synapse", "comm", "weight")
    assert u.get_unit(found[path]["weight"]) == u.get_unit(
        model.states(brainstate.ParamState)[path].value["weight"]
    )
    traces = learner.get_etrace_of(path)
    assert {v.shape for v in jax.tree.leaves(traces["synapse.comm.weight.weight"])} == {
        (B, IN + N, N)
    }
    assert_close(traces, learner.get_etrace_of(model.synapse.comm.weight))
    assert "synapse.comm.weight.weight" in str(learner.report)


def test_inputs_in_other_units_are_converted():
    class Leak(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = brainstate.ParamState(jnp.full((IN,), 0.5))

        def init_state(self, batch_size=None):
            self.v = brainstate.HiddenState(jnp.zeros((batch_size, IN)) * u.mV)

        def update(self, x):
            self.v.value = (0.9 * self.v.value + x * self.w.value).in_unit(u.volt)
            return self.v.value

    x = jnp.ones((B, IN))
    learner = braintrace.compile(Leak(), "d_rtrl", x * u.mV, batch_size=B)
    first = learner(x * 1e-3 * u.volt)
    np.testing.assert_allclose(first / u.mV, 0.5 * x)
    assert learner.model.v.value.unit == u.mV


def test_states_by_kind():
    model, xs, _ = example("statistics")
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    assert set(learner.hidden_states) == {("net", "rnn", "h")}
    assert set(learner.param_states) == set(model.states(brainstate.ParamState))
    assert set(learner.other_states) == {("norm", "running_mean"), ("norm", "running_var")}
    learner.etrace_evolve(xs)
    before = model.norm.running_mean.value
    learner.reset_state(model=True)
    assert model.norm.running_mean.value is before and jnp.all(model.net.rnn.h.value == 0)


def test_evolve_equals_the_model():
    model, xs, _ = example("layers")
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    outs = learner.etrace_evolve(xs, return_outputs=True)
    assert learner.running_index.value == T
    learner.reset_state(model=True)
    again = learner.etrace_evolve(xs, step_fn=lambda x: learner(x), return_outputs=True)
    assert_close(again, outs)
    learner.reset_state(model=True)
    for x, out in zip(xs, outs, strict=True):
        np.testing.assert_allclose(model(x), out, atol=1e-12)
    for options in ({}, {"traces": False}, {"step_fn": lambda x: learner(x)}, {"chunk_size": 2}):
        before = learner.running_index.value
        assert learner.etrace_evolve(xs, **options) is None
        assert learner.running_index.value == before + T
