"""Options of the sequence drivers, and what a step function may do."""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn

import braintrace
from braintrace import UsageError

from .models import (
    IN,
    OUT,
    B,
    Dropped,
    N,
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


@pytest.fixture
def learner():
    brainstate.random.seed(0)
    return braintrace.compile(Readout(), "d_rtrl", jnp.zeros((B, IN)), batch_size=B)


def per_sample(learner):
    return lambda x, y: sample_loss(learner(x), y)


def test_mask_and_reset_are_slices_of_each_sample(learner):
    """Two sequences packed into each sample, of different lengths, against a learner of one sample
    for each.
    """
    xs, ys = data()
    starts = np.array([2, 3, 5, 4])
    reset = np.arange(T)[:, None] == starts
    mask = np.arange(T)[:, None] != starts - 1
    found, losses = learner.etrace_grad(
        xs,
        ys,
        step_fn=per_sample(learner),
        mask=mask,
        reset=reset,
        reduction="sum",
        return_value=True,
        window=3,
    )
    brainstate.random.seed(0)
    single = braintrace.compile(Readout(), "d_rtrl", xs[0, :1], batch_size=1)
    total, step_fn = None, per_sample(single)
    for b, start in enumerate(starts):
        for part in (slice(0, start), slice(start, T)):
            single.reset_state(model=True)
            one = single.etrace_grad(
                xs[part, b : b + 1],
                ys[part, b : b + 1],
                step_fn=step_fn,
                mask=mask[part, b : b + 1],
                reduction="sum",
            )
            total = one if total is None else jax.tree.map(jnp.add, total, one)
        assert_close(single.model.rnn.h.value[0], learner.model.rnn.h.value[b])
    assert_close(found, total)
    assert losses.shape == (T, B)


def test_mean_divides_by_the_mask(learner):
    xs, ys = data()
    mask = jnp.asarray(np.random.default_rng(0).integers(0, 2, (T, B)))
    mean, losses = learner.etrace_grad(
        xs, ys, step_fn=per_sample(learner), mask=mask, return_value=True, return_state=False
    )
    total, value = learner.etrace_grad(
        xs,
        ys,
        step_fn=per_sample(learner),
        mask=mask,
        reduction="sum",
        return_value=True,
        loss_output="total",
        return_state=False,
    )
    assert_close(jax.tree.map(lambda g: g * mask.sum(), mean), total)
    np.testing.assert_allclose(value, jnp.sum(losses * mask))


def test_auxiliary_values_are_stacked(learner):
    xs, ys = data()

    def step_fn(x, y):
        out = learner(x)
        return total_loss(out, y), {"out": out, "h": learner.model.rnn.h.value}

    _, losses, aux = learner.etrace_grad(
        xs, ys, step_fn=step_fn, has_aux=True, return_value=True, window=3
    )
    assert losses.shape == (T,)
    assert aux["out"].shape == (T, B, OUT) and aux["h"].shape == (T, B, N)
    np.testing.assert_allclose(aux["h"][-1], learner.model.rnn.h.value)
    _, only = learner.etrace_grad(xs, ys, step_fn=step_fn, has_aux=True)
    assert set(only) == {"out", "h"}


def test_chosen_weights(learner):
    xs, ys = data()
    model = learner.model
    everything = learner.etrace_grad(xs, ys, step_fn=per_sample(learner), return_state=False)
    path = ("out", "weight")
    for weights in (model.out.weight, "out.weight"):
        one = learner.etrace_grad(
            xs, ys, step_fn=per_sample(learner), weights=weights, return_state=False
        )
        assert_close(one, everything[path])
    listed = learner.etrace_grad(
        xs, ys, step_fn=per_sample(learner), weights=[model.out.weight, path], return_state=False
    )
    assert_close(listed, [everything[path]] * 2)
    named = learner.etrace_grad(
        xs, ys, step_fn=per_sample(learner), weights={"w": model.out.weight}, return_state=False
    )
    assert_close(named, {"w": everything[path]})


def test_parameters_used_outside_of_the_learner(learner):
    """A loss that reads the model's parameters, a hidden state, and a module of its own."""
    xs, ys = data()
    head = nn.Linear(N, OUT)
    weights = {"w": learner.model.rnn.Wh.weight, "head": head.weight}

    def step_fn(x, y):
        learner(x)
        penalty = jnp.sum(jnp.square(learner.model.rnn.Wh.weight.value["weight"]))
        return total_loss(head(learner.model.rnn.h.value), y) + 0.1 * penalty

    gradient = brainstate.transform.grad(step_fn, weights)
    expected = [gradient(x, y) for x, y in zip(xs, ys, strict=True)]
    for window in (1, 3, None):
        reset_learner(learner)
        found = learner.etrace_grad(
            xs, ys, step_fn=step_fn, weights=weights, window=window, reduction="sum"
        )
        assert_close(found, jax.tree.map(lambda *v: sum(v), *expected))


def test_reading_the_state_before_the_call_sees_no_gradient(learner):
    xs, ys = data()

    def step_fn(x, y):
        before = learner.model.rnn.h.value
        return total_loss(learner(x), y) + jnp.sum(jnp.square(before))

    reset_learner(learner)
    expected = step_by_step(learner, xs, ys)
    for window in (1, 3):
        reset_learner(learner)
        assert_close(
            learner.etrace_grad(xs, ys, step_fn=step_fn, window=window, reduction="sum"), expected
        )


def test_states_of_the_step_function(learner):
    """A counter that it writes and a scale that it reads: both are arguments, not constants."""
    xs, ys = data()
    seen = brainstate.ShortTermState(jnp.zeros(()))
    scale = brainstate.ShortTermState(jnp.ones(()))

    def step_fn(x, y):
        seen.value = seen.value + 1
        return scale.value * seen.value * total_loss(learner(x), y)

    _, losses = learner.etrace_grad(
        xs, ys, step_fn=step_fn, return_value=True, window=3, return_state=False
    )
    assert seen.value == T
    seen.value, scale.value = jnp.zeros(()), 2.0 * jnp.ones(())
    _, again = learner.etrace_grad(
        xs, ys, step_fn=step_fn, return_value=True, window=3, return_state=False
    )
    np.testing.assert_allclose(again, 2 * losses)


@pytest.mark.parametrize("calls", [1, 2])
def test_random_numbers_and_further_calls(calls):
    """A step function that shares the model's key, or calls twice, is taken one step at a time."""
    learner = braintrace.compile(Dropped(), "d_rtrl", jnp.zeros((B, IN)), batch_size=B)
    xs, ys = data()

    def step_fn(x, y):
        out = sum(learner(x) for _ in range(calls))
        return total_loss(jnp.where(brainstate.random.rand(*out.shape) < 0.5, out, 0.0), y)

    gradient = brainstate.transform.grad(step_fn, learner.param_states)
    reset_learner(learner)
    expected = jax.tree.map(
        lambda *v: sum(v), *[gradient(x, y) for x, y in zip(xs, ys, strict=True)]
    )
    end, key, traces = hidden(learner), brainstate.random.DEFAULT.value, learner.etrace.value
    reset_learner(learner)
    found = learner.etrace_grad(xs, ys, step_fn=step_fn, reduction="sum")
    assert_close(found, expected)
    assert_close(hidden(learner), end)
    assert_close(learner.etrace.value, traces)
    assert jnp.all(jax.random.key_data(key) == jax.random.key_data(brainstate.random.DEFAULT.value))


def test_a_call_inside_a_transformation_of_the_step(learner):
    xs, ys = data()
    reset_learner(learner)
    expected = step_by_step(learner, xs, ys)
    inner = brainstate.transform.jit(lambda x: learner(x))
    reset_learner(learner)
    found = learner.etrace_grad(
        xs, ys, step_fn=lambda x, y: total_loss(inner(x), y), reduction="sum"
    )
    assert_close(found, expected)


def test_pieces_of_a_stream_add_up(learner):
    """Traces and states go on from call to call."""
    xs, ys = data()
    reset_learner(learner)
    whole = learner.etrace_grad(xs, ys, step_fn=per_sample(learner), reduction="sum")
    end, traces = hidden(learner), learner.etrace.value
    reset_learner(learner)
    parts = [
        learner.etrace_grad(xs[s], ys[s], step_fn=per_sample(learner), reduction="sum", window=2)
        for s in (slice(0, 3), slice(3, T))
    ]
    assert_close(jax.tree.map(jnp.add, *parts), whole)
    assert_close((hidden(learner), learner.etrace.value), (end, traces))
    assert learner.running_index.value == T


def test_without_state_nothing_moves(learner):
    xs, ys = data()
    learner(xs[0])
    before = hidden(learner), learner.etrace.value, learner.running_index.value
    first = learner.etrace_grad(xs, ys, step_fn=per_sample(learner), return_state=False)
    assert_close((hidden(learner), learner.etrace.value, learner.running_index.value), before)
    assert_close(learner.etrace_grad(xs, ys, step_fn=per_sample(learner)), first)


def test_states_are_as_before_after_an_error(learner):
    xs, ys = data()
    learner(xs[0])
    before = hidden(learner), learner.etrace.value
    calls = {
        "finite": lambda x, y: total_loss(learner(x), y) / jnp.zeros(()),
        "written": lambda x, y: (
            setattr(learner.model.rnn.h, "value", jnp.zeros((B, N))),
            total_loss(learner(x), y),
        )[1],
        "absent": lambda x, y: jnp.sum(x),
        "no loss": lambda x, y: learner(x).astype(int),
        "raises": lambda x, y: learner(x)[10, 10, 10],
    }
    for step_fn in calls.values():
        with pytest.raises((UsageError, IndexError)):
            learner.etrace_grad(xs, ys, step_fn=step_fn)
        now = hidden(learner), learner.etrace.value
        assert all(
            a is b for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(before), strict=True)
        )


@pytest.mark.parametrize(("name", "options"), [("d_rtrl", {}), ("pp_prop", {"decay_or_rank": 0.9})])
def test_values_that_the_step_carries_on(name, options):
    """A counter weighs the losses: the same in windows and step by step, and BPTT counts it too."""
    learner = braintrace.compile(Readout(), name, jnp.zeros((B, IN)), batch_size=B, **options)
    xs, ys = data()
    seen = brainstate.ShortTermState(jnp.zeros(()))

    def step_fn(x, y):
        seen.value = seen.value + 1
        return seen.value * sample_loss(learner(x), y)

    gradient = brainstate.transform.grad(lambda x, y: step_fn(x, y).sum(), learner.param_states)
    expected = [gradient(x, y) for x, y in zip(xs, ys, strict=True)]
    for window in (1, 3, None):
        reset_learner(learner)
        seen.value = jnp.zeros(())
        found = learner.etrace_grad(xs, ys, step_fn=step_fn, window=window, reduction="sum")
        assert_close(found, jax.tree.map(lambda *v: sum(v), *expected))
    reset = jnp.zeros((T, B), bool).at[3, 1].set(True)
    report = learner.check_gradients(xs, ys, step_fn=step_fn, reset=reset)
    assert report.ok and seen.value == T
    dropped = lambda x, y: seen.value * sample_loss(learner(x), y)  # control: it counts no more
    other = learner.etrace_grad(xs, ys, step_fn=dropped, reset=reset, return_state=False)
    norms = {row.path: row.reference_norm for row in report.rows}
    assert (
        abs(
            np.linalg.norm(other["out", "weight"]["bias"]) / norms["[('out', 'weight')]['bias']"]
            - 1
        )
        > 0.1
    )
