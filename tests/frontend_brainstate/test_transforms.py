"""Learners under transformations: compiled once, in loops, for seeds, for inputs."""

import brainstate
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
    Readout,
    T,
    assert_close,
    data,
    hidden,
    reset_learner,
    sample_loss,
    step_by_step,
    total_loss,
)


class Counted(Readout):
    """Counts how often its step is traced."""

    traces = 0

    def update(self, x):
        self.traces += 1
        return super().update(x)


@pytest.fixture
def learner():
    brainstate.random.seed(0)
    return braintrace.compile(Counted(), "d_rtrl", jnp.zeros((B, IN)), batch_size=B)


def test_calls_trace_once(learner):
    xs, ys = data()
    compiled = learner.model.traces
    traced = []

    def step_fn(x, y):
        traced.append(1)
        return sample_loss(learner(x), y)

    for _ in range(2):
        learner(xs[0])
        learner.etrace_evolve(xs)
        learner.etrace_grad(xs, ys, step_fn=step_fn, window=3)
        seen = (learner.functional._programs.update._cache_size(), len(traced))
    learner(xs[1])
    learner.etrace_grad(xs, ys, step_fn=step_fn, window=3)
    assert (learner.functional._programs.update._cache_size(), len(traced)) == seen
    assert learner.functional._programs.update._cache_size() == 1
    assert (
        learner.model.traces == compiled
    )  # the model's own code runs when it is compiled, never again


def test_whole_steps_under_jit(learner):
    xs, ys = data()
    states = learner.param_states

    @brainstate.transform.jit
    def one(x, y):
        return brainstate.transform.grad(lambda: total_loss(learner(x), y), states)()

    @brainstate.transform.jit
    def sequence(xs, ys):
        learner.reset_state(model=True)
        return learner.etrace_grad(
            xs, ys, step_fn=lambda x, y: total_loss(learner(x), y), reduction="sum", window=3
        )

    reset_learner(learner)
    expected = step_by_step(learner, xs, ys)
    end = hidden(learner)
    reset_learner(learner)
    found = jax.tree.map(lambda *v: sum(v), *[one(x, y) for x, y in zip(xs, ys, strict=True)])
    assert_close(found, expected)
    assert_close(hidden(learner), end)
    for _ in range(2):  # the second time starts from traces that are not zero
        assert_close(sequence(xs, ys), expected)
        assert_close(hidden(learner), end)
    assert learner.running_index.value == T


def test_for_loop(learner):
    xs, ys = data()
    reset_learner(learner)
    expected = step_by_step(learner, xs, ys)
    gradient = brainstate.transform.grad(
        lambda x, y: total_loss(learner(x), y), learner.param_states
    )
    reset_learner(learner)
    stacked = brainstate.transform.for_loop(gradient, xs, ys)
    assert_close(jax.tree.map(lambda v: v.sum(0), stacked), expected)


def test_gradient_of_the_input_and_the_new_state(learner):
    """A network in front of the learner trains too, and a loss of the new state counts."""
    xs, ys = data()
    front = nn.Linear(IN, IN)
    states = {
        "front": front.weight,
        "rnn": learner.model.rnn.Wh.weight,
        "out": learner.model.out.weight,
    }

    def step(x):
        learner(jnp.tanh(front(x)))
        return jnp.sum(jnp.square(learner.model.rnn.h.value))

    found = brainstate.transform.grad(step, states)(xs[0])
    sizes = {k: float(max(jnp.abs(v).max() for v in jax.tree.leaves(g))) for k, g in found.items()}
    assert sizes["front"] > 1e-3 and sizes["rnn"] > 1e-3 and sizes["out"] == 0
    of_x = brainstate.transform.grad(lambda x: total_loss(learner(x), ys[0]), argnums=0)(xs[0])
    assert of_x.shape == xs[0].shape and jnp.all(jnp.any(of_x != 0, axis=-1))


def test_vjp_and_value(learner):
    xs, ys = data()
    gradient = brainstate.transform.grad(
        lambda x, y: (total_loss(learner(x), y), learner.model.rnn.h.value),
        learner.param_states,
        has_aux=True,
        return_value=True,
    )
    grads, _, h = gradient(xs[0], ys[0])
    np.testing.assert_array_equal(h, learner.model.rnn.h.value)
    assert jax.tree.structure(grads) == jax.tree.structure(
        {p: s.value for p, s in learner.param_states.items()}
    )


def test_training_changes_what_the_learner_computes(learner):
    xs, ys = data()
    before = learner.etrace_grad(
        xs,
        ys,
        step_fn=lambda x, y: total_loss(learner(x), y),
        return_value=True,
        loss_output="total",
        return_state=False,
    )
    for path, state in learner.param_states.items():
        state.value = jax.tree.map(lambda w, g: w - 0.01 * g, state.value, before[0][path])
    after = learner.etrace_grad(
        xs,
        ys,
        step_fn=lambda x, y: total_loss(learner(x), y),
        return_value=True,
        loss_output="total",
        return_state=False,
    )
    assert after[1] < before[1]
    assert learner(xs[0]).shape == (B, OUT)
