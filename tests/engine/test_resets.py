"""Resets: the gradient is that of sequences that are cut there, on the graph that was compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from zoo import CASES, loss

from ._front_end import assert_same, data, distance

T, B, CUT = 6, 3, 2
RULES = {
    "d_rtrl": {},
    "pp_prop": {"decay_or_rank": 0.8},
    "ottt": {"leak": 0.7},
    "eprop": {"kappa_filter_decay": 0.6},
    "ostl_recurrent": {},
}


def summed(out, target):
    return loss(out, target).sum()


def gradient(learner, params, carry, xs, ys, **options):
    state = learner.init(params, carry)
    return learner.etrace_grad(
        params, state, xs, ys, loss_fn=loss, reduction="sum", return_state=False, **options
    )[0]


@pytest.mark.parametrize("window", [1, 4])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["gru_reset_after", "leaky_readout"])
def test_a_reset_of_all_samples_cuts_the_sequence(name, rule, window):
    params, carry, xs, ys = data(name, T, B)
    learner = braintrace.compile(
        CASES[name].cell, rule, xs[0], params=params, carry=carry, **RULES[rule]
    )
    reset = jnp.zeros((T, B), bool).at[CUT].set(True)
    found = gradient(learner, params, carry, xs, ys, window=window, reset=reset)
    parts = [
        gradient(learner, params, carry, xs[at], ys[at], window=window)
        for at in (slice(0, CUT), slice(CUT, T))
    ]
    assert_same(found, jax.tree.map(jnp.add, *parts), 1e-9)
    with pytest.raises(AssertionError):  # control
        assert_same(found, gradient(learner, params, carry, xs, ys, window=window), 1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_a_reset_of_one_sample_leaves_the_others(rule):
    """The samples of the batch are those of a batch in which another one is reset."""
    params, carry, xs, ys = data("alif", T, B)
    learner = braintrace.compile(
        CASES["alif"].cell, rule, xs[0], params=params, carry=carry, **RULES[rule]
    )
    one, all_ = (jnp.zeros((T, B), bool).at[k].set(True) for k in ((CUT, 1), CUT))
    only = lambda sample: jnp.zeros((T, B)).at[:, sample].set(1)
    for window in (1, 3):
        run = lambda reset, mask, window=window: gradient(
            learner, params, carry, xs, ys, window=window, reset=reset, mask=mask
        )
        assert_same(run(one, only(1)), run(all_, only(1)), 1e-9)
        assert_same(run(one, only(0)), run(None, only(0)), 1e-9)
        with pytest.raises(AssertionError):  # control
            assert_same(run(one, only(0)), run(one, only(1)))


def halves(p, c, x):
    """Excitatory and inhibitory halves of g drive v."""
    g, v = c
    v = 0.6 * v + jnp.concatenate([g[:, :2], -g[:, 2:]], -1)
    g = 0.8 * g + x @ p
    return (g, v), jnp.concatenate([g, v], -1)


@pytest.mark.parametrize("rule", RULES)
def test_a_sequence_with_marks_has_the_graph_that_was_compiled(rule):
    rng = np.random.default_rng(0)
    w, xs = jnp.asarray(rng.normal(size=(2, 4))), jnp.asarray(rng.normal(size=(T, 3, 2)))
    carry = (jnp.full((3, 4), 0.1),) * 2
    learner = braintrace.compile(halves, rule, xs[0], params=w, carry=carry, **RULES[rule])
    run = lambda **options: learner.etrace_grad(
        w, learner.init(w, carry), xs, loss_fn=lambda o: (o**2).sum(-1), **options
    )[0]
    none, some = jnp.zeros((T, 3), bool), jnp.zeros((T, 3), bool).at[3].set(True)
    for window in (1, 3, None):
        assert_same(run(window=window, reset=none), run())
        assert distance(run(window=window, reset=some), run(window=1, reset=some)) < 1e-10
        assert distance(run(window=window, reset=some), run()) > 1e-3  # control


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("window", [1, 3])
def test_integers_start_again_and_keys_move_on(rule, window):
    """Noise goes on as it would have; a counter begins again."""

    def cell(p, c, x):
        h, count, key = c
        key, now = jax.random.split(key)
        noise = jax.random.normal(now, h.shape)
        h = 0.8 * h + x @ p * (1 + 0.2 * count[:, None]) + 0.1 * noise
        return (h, count + 1, key), h

    xs, w = jnp.ones((T, B, 2)), jnp.ones((2, 4))
    carry = (jnp.zeros((B, 4)), jnp.zeros(B, int), jax.random.key(0))
    learner = braintrace.compile(cell, rule, xs[0], params=w, carry=carry, **RULES[rule])
    reset = jnp.zeros((T, B), bool).at[CUT, 0].set(True)
    found, state, _ = learner.etrace_grad(
        w,
        learner.init(w, carry),
        xs,
        loss_fn=lambda o: (o**2).sum(-1),
        window=window,
        reset=reset,
        reduction="sum",
    )
    assert state.carry[1].tolist() == [T - CUT, T, T]
    plain = learner.etrace_evolve(w, learner.init(w, carry), xs)[0].carry
    assert (jax.random.key_data(state.carry[2]) == jax.random.key_data(plain[2])).all()

    def total(w):
        c, value = carry, 0.0
        for t in range(T):
            h, count, key = c
            here = reset[t]
            c = (jnp.where(here[:, None], 0.0, h), jnp.where(here, 0, count), key)
            c, out = cell(w, c, xs[t])
            value += (out**2).sum()
        return value

    if rule in ("d_rtrl", "ostl_recurrent"):  # exact for this cell
        assert distance(found, jax.grad(total)(w)) < 1e-9
    assert np.linalg.norm(found) > 1e-3


@pytest.mark.parametrize("rule", ["d_rtrl", "eprop"])
def test_no_derivative_passes_a_state_that_is_not_finite(rule):
    """The old state of a sample that is reset may be anything."""

    def cell(p, h, x):
        h = 0.9 * jnp.sqrt(h) + x @ p
        return h, h

    xs, w = jnp.ones((T, 2, 2)), jnp.ones((2, 4))
    carry = jnp.ones((2, 4))
    learner = braintrace.compile(cell, rule, xs[0], params=w, carry=carry)
    reset = jnp.zeros((T, 2), bool).at[0, 1].set(True)
    bad = carry.at[1].set(-1.0)
    options = {"loss_fn": lambda o: o.sum(-1), "reset": reset}
    for window in (1, 3):
        found, expected = (
            learner.etrace_grad(w, learner.init(w, c), xs, window=window, **options)[0]
            for c in (bad, carry)
        )
        assert_same(found, expected)
    with pytest.raises(braintrace.UsageError, match="not finite"):  # control
        learner.etrace_grad(w, learner.init(w, bad), xs, loss_fn=lambda o: o.sum(-1))


def test_a_feedback_weight_is_that_of_all_samples_and_is_not_reset():
    """Its size may be that of the batch."""
    neurons = out = B

    def cell(p, h, x):
        h = 0.8 * h + jnp.tanh(x @ p["w"])
        return h, h @ p["o"]

    rng = np.random.default_rng(0)
    params = {
        k: jnp.asarray(rng.normal(size=s)) for k, s in (("w", (2, neurons)), ("o", (neurons, out)))
    }
    xs, carry = jnp.asarray(rng.normal(size=(T, B, 2))), jnp.zeros((B, neurons))
    learner = braintrace.compile(
        cell,
        "eprop",
        xs[0],
        params=params,
        carry=carry,
        feedback="adaptive",
        random_feedback_key=0,
        feedback_decay=0.3,
    )
    states = [
        learner.etrace_grad(
            params, learner.init(params, carry), xs, loss_fn=lambda o: (o**2).sum(-1), **reset
        )[1]
        for reset in ({}, {"reset": jnp.zeros((T, B), bool).at[CUT].set(True)})
    ]
    first, second = (
        dict(zip([e.name for e in learner.graph.extra], s.traces["extra"], strict=True))["feedback"]
        for s in states
    )
    np.testing.assert_array_equal(first, second)
