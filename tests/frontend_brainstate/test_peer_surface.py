"""Learners by names and options that users of the PyPI package braintrace know."""

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn

import braintrace

from .leaky import IN, Leaky, T, gradient, sequences
from .models import assert_close


def test_vmap_gives_a_learner_of_the_batch():
    model, xs = Leaky(), brainstate.random.randn(T, 5, IN)
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=5, vmap=True)
    assert isinstance(learner, braintrace.ETraceVmap) and isinstance(learner, nn.Vmap)
    assert isinstance(learner, braintrace.SequenceDriverMixin)
    assert (
        isinstance(learner.module, braintrace.D_RTRL)
        and learner.module.report.counts == learner.report.counts
    )
    step_fn = lambda x: jnp.sum(learner(x) ** 2)
    whole = learner.etrace_grad(xs, step_fn=step_fn, reduction="sum", window=3)
    learner.reset_state(model=True)
    steps = [brainstate.transform.grad(step_fn, model.states(brainstate.ParamState))(x) for x in xs]
    assert_close(whole, jax.tree.map(lambda *v: sum(v), *steps))
    assert learner.module.running_index.value == T
    with pytest.raises(braintrace.UsageError, match="Another batch size"):
        learner.reset_state(batch_size=4)


def test_evolving_moves_the_traces_on():
    model, (xs, ys) = Leaky(), sequences()
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    whole = gradient(learner, xs, ys, mask=jnp.arange(T) >= 3)

    def warmed_up(**options):
        learner.reset_state(model=True)
        learner.etrace_evolve(xs[:3], **options)
        step_fn = lambda x, y: jnp.sum((learner(x) - y) ** 2)
        return learner.etrace_grad(xs[3:], ys[3:], step_fn=step_fn, reduction="sum")

    for options in ({}, {"chunk_size": 2}, {"step_fn": lambda x: learner(x)}):
        assert_close(warmed_up(**options), whole)
    assert not np.allclose(
        warmed_up(traces=False)["w",], whole["w",], rtol=1e-3
    )  # control: without the warm-up's traces


def test_loss_output_by_either_name():
    model, (xs, ys) = Leaky(), sequences()
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    step, total = (
        gradient(learner, xs, ys, return_value=True, loss_output=n)[1]
        for n in ("per_step", "scalar")
    )
    assert step.shape == (T,)
    np.testing.assert_allclose(step.sum(), total)


def test_verbose_prints_the_report(capsys):
    braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN), verbose=2)
    assert "relation_partial_path" in capsys.readouterr().out
    with pytest.raises(braintrace.UsageError, match="verbose"):
        braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN), verbose=3)


def test_options_of_the_peer_that_change_no_value():
    model, (xs, ys) = Leaky(), sequences()
    plain = gradient(braintrace.compile(model, "d_rtrl", xs[0]), xs, ys)
    assert_close(
        gradient(
            braintrace.compile(model, "d_rtrl", xs[0], fast_solve=False, chunked_trace=False),
            xs,
            ys,
        ),
        plain,
    )
    with pytest.raises(braintrace.UsageError, match="no multi-step form"):
        braintrace.OTTT(model, leak=0.5, vjp_method="multi-step")


def test_init_etrace_state_clears_the_traces():
    learner = braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN))
    learner(jnp.ones(IN))
    assert any(jnp.any(v != 0) for v in jax.tree.leaves(learner.get_etrace_of(("w",))))
    learner.init_etrace_state()
    assert all(jnp.all(v == 0) for v in jax.tree.leaves(learner.etrace.value))
    assert set(learner.path_to_states) == {("h",), ("w",), ("r",), ("o",)}


def test_gradients_summed_with_a_leak():
    with brainstate.environ.context(dt=1.0 * u.ms):
        summed = braintrace.GradExpon({"w": jnp.zeros(3)}, 10.0 * u.ms)
    assert summed.decay == pytest.approx(np.exp(-0.1))
    summed.update({"w": jnp.ones(3)})
    np.testing.assert_allclose(summed.update({"w": jnp.ones(3)})["w"], 1 + np.exp(-0.1))
    summed.reset_state()
    assert jnp.all(summed.gradients.value["w"] == 0)
    for wrong in (1.0, 0, -2.0 * u.ms, 3.0 * u.mV, "fast"):
        with (
            brainstate.environ.context(dt=1.0 * u.ms),
            pytest.raises(braintrace.UsageError, match="tau_or_decay"),
        ):
            braintrace.GradExpon(jnp.zeros(3), wrong)
    with pytest.raises(braintrace.UsageError, match="another structure"):
        summed.update(jnp.ones(3))
