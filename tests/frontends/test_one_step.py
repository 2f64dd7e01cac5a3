"""`value_and_grad`: one step with its gradient, whose traces are moved on where they lie."""

import brainstate
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from robustness._front_ends import (
    CARRY,
    NNX,
    PARAMS,
    B,
    Brainstate,
    Equinox,
    Function,
    N,
    O,
    X,
    Y,
    cell,
    squared_error,
)

loss = lambda out, y: squared_error(out, y).mean()


def pure(front_end):
    """(learner, params, state) of a function or of an Equinox module."""
    made = front_end()
    learner = made.compile()
    return learner, made.params, learner.init(made.params, CARRY)


def leaves(tree):
    return [np.asarray(v) for v in jax.tree.leaves(tree)]


def same(a, b, tolerance=1e-6):
    a, b = leaves(a), leaves(b)
    return len(a) == len(b) > 0 and all(
        np.allclose(x, y, tolerance, tolerance) for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("donate", [False, True])
@pytest.mark.parametrize("front_end", [Function, Equinox])
def test_steps_are_those_of_update(front_end, donate):
    learner, params, state = pure(front_end)

    @eqx.filter_value_and_grad(has_aux=True)
    def through_update(params, state, x, y):
        state, out = learner.update(params, state, x)
        return loss(out, y), state

    other = learner.init(params, CARRY)
    for x, y in zip(X, Y, strict=True):
        (value, other), expected = through_update(params, other, x, y)
        got, gradients, state = learner.value_and_grad(
            params, state, x, y, loss_fn=squared_error, donate=donate
        )
        assert same((got, gradients, state.traces), (value, expected, other.traces))
        assert int(state.steps) == int(other.steps)
    zero = learner.init(params, CARRY)  # control: a trace is in them
    assert not same(learner.value_and_grad(params, zero, x, y, loss_fn=loss)[1], gradients)


@pytest.mark.parametrize("donate", [False, True])
def test_steps_of_a_brainstate_learner_are_those_of_a_call(donate):
    learner, other = Brainstate().compile(), Brainstate().compile()
    grad = brainstate.transform.grad(
        lambda x, y: loss(other(x), y), other.param_states, return_value=True
    )
    for x, y in zip(X, Y, strict=True):
        expected, value = grad(x, y)
        got, gradients = learner.value_and_grad(x, y, loss_fn=squared_error, donate=donate)
        assert same((got, gradients), (value, expected))
        assert same(learner.etrace.value, other.etrace.value)
    (got, aux), some = learner.value_and_grad(
        x, y, step_fn=lambda x, y: (loss(learner(x), y), y), has_aux=True, weights=["w"]
    )
    assert same(aux, y) and len(jax.tree.leaves(some)) == 1 and got.shape == ()


def test_options_have_no_axis_of_time():
    learner, params, state = pure(Function)
    of = lambda **given: learner.value_and_grad(params, state, X[0], Y[0], **given)
    mask, rows = jnp.asarray([1.0, 0.0]), squared_error(cell(params, CARRY, X[0])[1], Y[0])
    (value, aux), gradients, _ = of(
        loss_fn=lambda out, y: (squared_error(out, y), out), mask=mask, has_aux=True
    )
    assert same(value, rows[0]) and aux.shape == (B, O)
    first = of(loss_fn=lambda out, y: squared_error(out, y)[0])
    assert same((value, gradients), first[:2])
    assert same(of(loss_fn=squared_error, reduction="sum")[0], rows.sum())
    targeted = braintrace.compile(cell, "osttp", X[0], params=PARAMS, carry=CARRY, feedback_key=0)
    start = targeted.init(PARAMS, CARRY)
    given = {"loss_fn": loss, "y_target": Y[0]}
    _, gradients, _ = targeted.value_and_grad(PARAMS, start, X[0], Y[0], **given)
    given["y_target"] = Y[:1]
    expected = targeted.etrace_grad(PARAMS, start, X[:1], Y[:1], **given)[0]
    assert same(gradients, expected)
    modulated = braintrace.compile(cell, "three_factor", X[0], params=PARAMS, carry=CARRY)
    start, given = modulated.init(PARAMS, CARRY), {"loss_fn": loss}
    of = lambda m: modulated.value_and_grad(PARAMS, start, X[0], Y[0], modulator=m, **given)[1]
    assert same(of(jnp.ones(B))["w"] * 2, of(2 * jnp.ones((B, N)))["w"])


@pytest.mark.parametrize("front_end", [Function, Equinox])
def test_a_state_that_was_given_away_is_refused(front_end):
    learner, params, state = pure(front_end)
    step = lambda state, **given: learner.value_and_grad(
        params, state, X[0], Y[0], loss_fn=loss, **given
    )
    kept = step(state)
    assert same(step(state)[2], kept[2])  # control: without `donate` it is still there
    _, _, new = step(state, donate=True)
    assert all(v.is_deleted() for v in jax.tree.leaves(state.traces))
    assert same(new, kept[2])
    entrances = (
        lambda: step(state),
        lambda: learner.update(params, state, X[0]),
        lambda: learner.etrace_grad(params, state, X, Y, loss_fn=loss),
        lambda: learner.etrace_evolve(params, state, X),
    )
    for entrance in entrances:
        with pytest.raises(braintrace.UsageError, match=r"(?s)given away.*donate=True.*copy"):
            entrance()
    with pytest.raises(RuntimeError, match="deleted"):
        np.asarray(jax.tree.leaves(state.traces)[0])
    learner.etrace_grad(params, new, X, Y, loss_fn=loss, donate=True)
    with pytest.raises(braintrace.UsageError, match="given away"):
        step(new)


def test_learners_that_hold_their_state_go_on():
    learner, held = Brainstate().compile(), NNX().compile()
    for one, traces in ((learner, lambda: learner.etrace.value), (held, held.traces.get_value)):
        before = traces()
        one.value_and_grad(X[0], Y[0], loss_fn=loss)
        again = traces()
        one.value_and_grad(X[1], Y[1], loss_fn=loss, donate=True)
        gone = lambda tree: {v.is_deleted() for v in jax.tree.leaves(tree)}
        assert (gone(before), gone(again), gone(traces())) == ({False}, {True}, {False})
        one.etrace_grad(X, Y, loss_fn=loss, donate=True)
        with pytest.raises(braintrace.UsageError, match="not finite"):
            one.value_and_grad(jnp.inf * X[0], Y[0], loss_fn=loss, donate=True)
        with pytest.raises(braintrace.UsageError, match="reset_state"):
            one.value_and_grad(X[0], Y[0], loss_fn=loss)
        one.reset_state(model=True)
        one.value_and_grad(X[0], Y[0], loss_fn=loss, donate=True)


def test_without_donate_a_refused_step_changes_nothing():
    learner, params, state = pure(Function)
    before = leaves(state)
    with pytest.raises(braintrace.UsageError, match="not finite"):
        learner.value_and_grad(params, state, jnp.nan * X[0], Y[0], loss_fn=loss)
    with pytest.raises(braintrace.UsageError, match="wrong shape"):
        learner.value_and_grad(params, state, X[0, :1], Y[0], loss_fn=loss, donate=True)
    assert same(state, before)


def test_a_jitted_step_has_no_second_copy_of_the_traces():
    inputs, neurons, samples = 32, 128, 16
    wide = lambda w, h, x: ((h := jnp.tanh(0.5 * h + x @ w)), h)
    w, h, x = (
        jnp.ones((inputs, neurons)),
        jnp.zeros((samples, neurons)),
        jnp.ones((samples, inputs)),
    )
    learner = braintrace.compile(wide, "d_rtrl", x, params=w, carry=h)
    state = learner.init(w, h)
    traces = sum(v.nbytes for v in jax.tree.leaves(state.traces))

    def own(w, state, x):
        return learner.value_and_grad(w, state, x, loss_fn=lambda h: (h**2).sum(), donate=True)

    def through_update(w, state, x):
        def value(w):
            new, out = learner.update(w, state, x)
            return (out**2).sum(), new

        return jax.value_and_grad(value, has_aux=True)(w)

    def beside(step):
        compiled = jax.jit(step, donate_argnums=1).lower(w, state, x).compile()
        memory = compiled.memory_analysis()
        return memory.temp_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes

    assert beside(own) < traces / 2
    assert beside(through_update) > traces  # control
