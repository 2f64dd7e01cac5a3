"""Traces stored in bfloat16: to the nearest they stall where the leak is close to one, and rounded
at random they do not.
"""

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import rules
from braintrace.core.traces._rounded import rounded_by
from braintrace.rules import StochasticRounding

I, H, T, LEAK = 3, 4, 3000, 0.999
RULES = {"d_rtrl": {}, "pp_prop": {"decay_or_rank": LEAK}, "ottt": {"leak": LEAK}}
W = np.random.default_rng(0).normal(size=(I, H))
XS = np.random.default_rng(1).normal(size=(T, 1, I)) + 1


def cell(w, h, x):
    h = LEAK * h + (1 - LEAK) * (x @ w)
    return h, jnp.tanh(h)


def learner(rule, dtype):
    w, h = jnp.asarray(W), jnp.zeros((1, H))
    given = {"params": w, "carry": h, "trace_dtype": dtype, **RULES[rule]}
    made = braintrace.compile(cell, rule, jnp.asarray(XS[0]), **given)
    return made, w, made.init(w, h)


def gradient(rule, dtype, window=1):
    made, w, state = learner(rule, dtype)
    return made.etrace_grad(w, state, XS, loss_fn=jnp.sum, reduction="sum", window=window)[0]


def off(got, wanted):
    return float(jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted))


@pytest.mark.parametrize("value", [1 + 2**-9, -0.3, 3.0, 1e-30])
def test_a_number_is_rounded_to_its_neighbours_and_right_on_average(value):
    value = jnp.float32(value)
    every = jnp.arange(1 << 16, dtype=jnp.uint32) << 16
    found = rounded_by(every, jnp.full(every.shape, value)).astype(np.float64)
    assert len(np.unique(found)) <= 2 and found.dtype == np.float64
    np.testing.assert_allclose(found.mean(), float(value), rtol=1e-6)
    if value != 3:  # control: what is no number of bfloat16
        assert abs(float(value.astype(jnp.bfloat16)) / float(value) - 1) > 1e-5


def test_what_is_not_finite_stays():
    values = jnp.array([np.nan, np.inf, -np.inf], np.float32)
    found = rounded_by(jnp.full(3, 0xFFFFFFFF, jnp.uint32), values)
    np.testing.assert_array_equal(found.astype(np.float32), values)


@pytest.mark.parametrize("rule", RULES)
def test_rounded_at_random_a_trace_does_not_stall(rule):
    wanted = gradient(rule, jnp.float64)
    nearest = off(gradient(rule, jnp.bfloat16), wanted)
    for window in (1, 8):
        at_random = off(gradient(rule, StochasticRounding(), window), wanted)
        assert at_random < 0.03 < 0.1 < nearest, (window, at_random, nearest)


def test_a_pulse_fades():
    """With a leak of 0.999: to the nearest, the trace of a pulse stays as it is for ever."""
    wide, xs = jnp.ones((1, 400)), jnp.zeros((1000, 1, 1)).at[0].set(1)
    ends = {}
    for dtype in (jnp.float64, jnp.bfloat16, StochasticRounding()):
        made = braintrace.compile(
            cell, "d_rtrl", xs[0], params=wide, carry=jnp.zeros((1, 400)), trace_dtype=dtype
        )
        state = made.init(wide, jnp.zeros((1, 400)))
        end = made.etrace_grad(wide, state, xs, loss_fn=jnp.sum, window=1)[1].traces
        ends[dtype] = float(jnp.concatenate([jnp.ravel(v) for v in _traces(end)]).mean())
    exact, nearest, at_random = ends.values()
    assert exact == pytest.approx(0.001 * LEAK**999)
    assert nearest == pytest.approx(0.001, rel=0.01)
    assert at_random == pytest.approx(exact, rel=0.05)


def _traces(tree):
    return [v.astype(np.float64) for v in jax.tree.leaves(tree) if v.size == 400]


@pytest.mark.parametrize("rule", RULES)
def test_one_call_gives_what_several_give(rule):
    made, w, state = learner(rule, StochasticRounding())
    run = lambda state, xs: made.etrace_grad(
        w, state, xs, loss_fn=jnp.sum, reduction="sum", window=2
    )[:2]
    whole, end = run(state, XS[:20])
    first, middle = run(state, XS[:8])
    second, last = run(middle, XS[8:20])
    jax.tree.map(np.testing.assert_array_equal, end, last)
    np.testing.assert_allclose(first + second, whole, atol=1e-12)

    other = made.init(w, jnp.zeros((1, H)), key=7)
    assert off(run(other, XS[:20])[0], whole) > 1e-5  # another key, other chances


@pytest.mark.parametrize("rule", RULES)
def test_steps_of_update_are_those_of_the_sequence(rule):
    made, w, state = learner(rule, StochasticRounding())
    step = jax.jit(jax.grad(lambda w, s, x: _summed(made, w, s, x), has_aux=True))
    total, at = jnp.zeros_like(w), state
    for x in XS[:5]:
        of_step, at = step(w, at, x)
        total = total + of_step
    whole, end, *_ = made.etrace_grad(w, state, XS[:5], loss_fn=jnp.sum, reduction="sum", window=1)
    np.testing.assert_allclose(total, whole, atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-2), at.traces, end.traces)


def _summed(made, w, state, x):
    state, out = made.update(w, state, x)
    return out.sum(), state


@pytest.mark.parametrize("rule", RULES)
def test_bytes_halve_and_nothing_is_certified_as_exact(rule):
    single, *_ = learner(rule, jnp.float32)
    for dtype in (jnp.bfloat16, StochasticRounding()):
        half, *_ = learner(rule, dtype)
        of_weights = lambda made: sum(row.traces for row in made.memory_plan(9).parameters)
        assert 2 * of_weights(half) == of_weights(single)
        assert half.report.counts["exact"] == 0
        assert "its traces are rounded to bfloat16" in str(half.report)
    exact, *_ = learner("d_rtrl", jnp.float32)
    assert exact.report.counts["exact"] == 1  # control


def _models():
    eqx, nnx = pytest.importorskip("equinox"), pytest.importorskip("flax.nnx")
    h, x = jnp.zeros((2, H)), jnp.zeros((2, I))
    yield brainstate.nn.GRUCell(I, H), {"batch_size": 2}, x
    yield nnx.GRUCell(I, H, rngs=nnx.Rngs(0)), {"carry": h, "call": None}, x
    module = eqx.nn.GRUCell(I, H, key=jax.random.key(0))
    call = lambda model, h, x: ((h := jax.vmap(model)(x, h)), h)
    yield module, {"carry": h, "call": call}, x


def test_every_front_end_takes_it():
    for model, given, x in _models():
        if given.get("call", 0) is None:
            given = {"carry": given["carry"]}
        made = braintrace.compile(
            model, "d_rtrl", x, trace_dtype=StochasticRounding("bfloat16"), **given
        )
        assert "its traces are rounded to bfloat16" in str(made.report), type(model)


def test_what_cannot_be_is_refused():
    for dtype in ("float16", "float32", "no dtype", 3):
        with pytest.raises(braintrace.UsageError, match="Invalid dtype of StochasticRounding"):
            StochasticRounding(dtype)
    turning = lambda w, h, x: ((h := 0.5j * h + x @ w), h.real)
    with pytest.raises(braintrace.CompilationError, match="Complex traces cannot be rounded"):
        braintrace.compile(
            turning,
            "d_rtrl",
            jnp.ones((1, I)),
            params=jnp.asarray(W) + 0j,
            carry=jnp.zeros((1, H)) + 0j,
            trace_dtype=StochasticRounding(),
        ).init(jnp.asarray(W) + 0j, jnp.zeros((1, H)) + 0j)
    assert hash(StochasticRounding()) == hash(StochasticRounding(jnp.bfloat16))
    assert rules.floating("trace_dtype", StochasticRounding()) == StochasticRounding()
