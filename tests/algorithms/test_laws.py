"""Laws that hold of every algorithm: lanes, resets, masks, transformations, precision."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ._rules import CASES, QUICK, SUM, apart, learner, same, windowed
from .cells import B, T, data

NAME = dict.fromkeys(CASES, "recurrent_lif")
RESET = jnp.zeros((T, B), bool).at[3, 1].set(True).at[1, 0].set(True)
MASK = jnp.asarray(np.random.default_rng(3).random((T, B)) > 0.3, float)


@pytest.fixture(params=CASES, scope="module")
def case(request):
    return request.param


@functools.cache
def single(case):
    """The same rule on one lane."""
    _, carry, xs, _ = data(NAME[case])
    lane = jax.tree.map(lambda v: v[:1], carry)
    return CASES[case].learner(NAME[case], carry=lane, x=xs[0, :1])


def lane(tree, b):
    return jax.tree.map(lambda v: v[b : b + 1], tree)


def part(driver, times, b):
    return {k: v[times, b : b + 1] for k, v in driver.items()}


def test_a_reset_and_a_mask_are_separate_runs_of_each_lane(case):
    """Traces, filters, means and corrections start afresh; and a batch is the sum of its lanes."""
    name, this, alone, driver = NAME[case], learner(case, NAME[case]), single(case), CASES[case].driver()
    params, carry, xs, ys = data(name)

    @partial(jax.jit, compiler_options=QUICK)
    def whole(params, carry):
        start = this.init(params, carry)
        return this.etrace_grad(params, start, xs, ys, mask=MASK, reset=RESET, window=2, **SUM, **driver)[:2]

    @partial(jax.jit, static_argnames="steps", compiler_options=QUICK)
    def stretch(params, carry, xs, ys, mask, driver, steps):
        return alone.etrace_grad(params, alone.init(params, carry), xs, ys, mask=mask, window=1, **SUM, **driver)[:2]

    got, end = whole(params, carry)
    total, ends = jax.tree.map(jnp.zeros_like, params), []
    for b, at in ((0, 1), (1, 3)):
        for times in (slice(0, at), slice(at, T)):
            given = (lane(carry, b), xs[times, b : b + 1], ys[times, b : b + 1], MASK[times, b : b + 1])
            found, last = stretch(params, *given, part(driver, times, b), at)
            total = jax.tree.map(jnp.add, total, found)
        ends.append(last)
    same(got, total)
    assert_same_traces(end.traces, ends)
    without = this.etrace_grad(params, this.init(params, carry), xs, ys, mask=MASK, window=2, **SUM, **driver)[0]
    hidden = {k: v for k, v in apart(without, got).items() if k != "o"}
    assert min(hidden.values()) > 1e-3, hidden  # control: the reset matters


def assert_same_traces(batch, singles):
    """Every trace with a lane axis, after a reset, is that of the lane's own run."""
    parts = [jax.tree.leaves(s.traces) for s in singles]
    for whole, *lanes in zip(jax.tree.leaves(batch), *parts, strict=True):
        if whole.ndim and whole.shape[0] == B and lanes[0].shape[0] == 1:
            np.testing.assert_allclose(whole, jnp.concatenate(lanes), rtol=1e-9, atol=1e-11)


def test_no_state_and_no_traces_change_nothing(case):
    name, this, driver = NAME[case], learner(case, NAME[case]), CASES[case].driver()
    params, carry, xs, ys = data(name)

    @partial(jax.jit, compiler_options=QUICK)
    def both(params, carry):
        kept, end, _ = this.etrace_grad(params, this.init(params, carry), xs, ys, window=3, **SUM, **driver)
        bare = this.init(params, carry, traces=False)
        left, none, _ = this.etrace_grad(params, bare, xs, ys, window=T, return_state=False, **SUM, **driver)
        assert none is None and bare.traces is None
        return kept, left, end

    kept, left, end = both(params, carry)
    same(left, kept)
    assert jax.tree.structure(end.traces) == jax.tree.structure(this.init(params, carry).traces)
    half = this.etrace_grad(params, this.init(params, carry), xs[:3], ys[:3], **SUM, **{k: v[:3] for k, v in driver.items()})
    rest = this.etrace_grad(params, half[1], xs[3:], ys[3:], **SUM, **{k: v[3:] for k, v in driver.items()})
    same(jax.tree.map(jnp.add, half[0], rest[0]), kept)  # two calls are one


def test_vmap_over_seeds_is_a_loop(case):
    name, this, driver = NAME[case], learner(case, NAME[case]), CASES[case].driver()
    params, carry, xs, ys = data(name)
    many = jax.tree.map(lambda v: jnp.stack([v, 0.7 * v]), params)
    run = lambda p: windowed(this, (p, carry, xs, ys), 3, **driver)  # noqa: E731
    mapped, looped = jax.jit(lambda m: (jax.vmap(run)(m), jax.lax.map(run, m)), compiler_options=QUICK)(many)
    same(mapped, looped, 1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_single_and_half_precision(case, dtype):
    """Gradients have the parameters' dtype, traces at least float32, and the numbers are near those of float64."""
    name = NAME[case]
    narrow = jax.tree.map(lambda v: v.astype(dtype), data(name))
    params, carry, xs, _ = narrow
    this = CASES[case].learner(name, params, carry, xs[0])
    driver = {k: v.astype(dtype) for k, v in CASES[case].driver().items()}
    got = jax.jit(lambda *given: windowed(this, given, 3, **driver), compiler_options=QUICK)(*narrow)
    assert all(g.dtype == dtype for g in got.values())
    traces = jax.tree.leaves(this.init(params, carry).traces)
    assert all(t.dtype == jnp.float32 for t in traces if jnp.issubdtype(t.dtype, jnp.inexact) and not _in_carry(this, t)), [
        t.dtype for t in traces
    ]
    wide = jax.tree.map(lambda v: v.astype(jnp.float64), narrow)
    right = jax.jit(lambda *given: windowed(learner(case, name), given, 3, **CASES[case].driver()), compiler_options=QUICK)(*wide)
    off = apart(jax.tree.map(lambda v: v.astype(jnp.float64), got), right)
    assert max(off.values()) < (1e-4 if dtype == jnp.float32 else 0.2), off


def _in_carry(this, trace):
    """Whether a trace has the shape and dtype of a filter that the rule added to the carry."""
    return any(e.initial.shape == trace.shape and e.initial.dtype == trace.dtype for e in this.graph.extra)
