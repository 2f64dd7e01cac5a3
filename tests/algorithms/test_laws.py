"""Laws that hold of every algorithm: samples, resets, masks, transformations, precision."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from zoo._interpret import run_once, traced_once

from ._rules import CASES, QUICK, SUM, apart, readout_like, same, windowed
from .cells import EXAMPLES, B, T, data

NAME = "recurrent_lif"
HALF = T // 2
RESET = jnp.zeros((T, B), bool).at[HALF, 1].set(True)
MASK = jnp.asarray(np.random.default_rng(3).random((T, B)) > 0.3, float)


def kept(name):
    """Adaptive feedback is a weight: a reset leaves it alone, and here it stays as it is."""
    return {"feedback": "adaptive", "feedback_weights": [readout_like(name)], "feedback_decay": 0.0}


RULES = CASES | {"eprop_adaptive": dataclasses.replace(CASES["eprop_adaptive"], options=kept)}


@pytest.fixture(params=RULES, scope="module")
def case(request):
    return request.param


@functools.cache
def learner(case):
    return RULES[case].learner(NAME)


def sequence(case, params, carry, xs, ys, driver):
    """(gradient, end state) of a sequence in windows of 3."""
    this = learner(case)
    return this.etrace_grad(params, this.init(params, carry), xs, ys, window=3, **SUM, **driver)[:2]


@functools.cache
def program(case):
    return traced_once(partial(sequence, case))


def sample(tree, b):
    return jax.tree.map(lambda v: v[b : b + 1], tree)


def test_a_reset_and_a_mask_are_separate_runs_of_each_sample(case):
    """Traces, filters, means and corrections are reset; a batch is the sum of its samples, and two
    calls are one.
    """
    this, driver = learner(case), RULES[case].driver(NAME)
    params, carry, xs, ys = data(NAME)
    alone = RULES[case].learner(NAME, carry=sample(carry, 0), x=xs[0, :1])

    @traced_once
    def whole(params, carry, reset):
        start = this.init(params, carry)
        return this.etrace_grad(
            params, start, xs, ys, mask=MASK, reset=reset, window=2, **SUM, **driver
        )[:2]

    @traced_once
    def stretch(params, state, xs, ys, mask, driver):
        return alone.etrace_grad(params, state, xs, ys, mask=mask, window=1, **SUM, **driver)[:2]

    got, end = whole(params, carry, RESET)
    total, ends = jax.tree.map(jnp.zeros_like, params), []
    for b in range(B):
        start = state = alone.init(params, sample(carry, b))
        for k, times in enumerate((slice(0, HALF), slice(HALF, T))):
            state = start if k and b == 1 else state
            more = jax.tree.map(lambda v, b=b, times=times: v[times, b : b + 1], driver)
            found, state = stretch(
                params, state, *(v[times, b : b + 1] for v in (xs, ys, MASK)), more
            )
            total = jax.tree.map(jnp.add, total, found)
        ends.append(state)
    same(got, total)
    assert_same_traces(end.traces, ends)
    without, _ = whole(params, carry, jnp.zeros_like(RESET))
    hidden = {k: v for k, v in apart(without, got).items() if k != "o"}
    assert min(hidden.values()) > 1e-3, hidden  # control: the reset matters


def assert_same_traces(batch, singles):
    """Every trace with a sample axis, after a reset, is that of the sample's own run."""
    parts, compared = [jax.tree.leaves(s.traces) for s in singles], 0
    for whole, *samples in zip(jax.tree.leaves(batch), *parts, strict=True):
        samples = [jnp.atleast_1d(v) for v in samples]  # a sample alone has one count, not a list
        if whole.ndim and whole.shape[0] == B and samples[0].shape[0] == 1:
            np.testing.assert_allclose(whole, jnp.concatenate(samples), rtol=1e-9, atol=1e-11)
            compared += 1
    assert compared or not jax.tree.leaves(batch)


def test_no_state_and_no_traces_change_nothing(case):
    this, driver = learner(case), RULES[case].driver(NAME)
    params, carry, xs, ys = data(NAME)
    right, end = program(case)(params, carry, xs, ys, driver)
    bare = this.init(params, carry, traces=False)
    assert bare.traces is None

    @traced_once
    def without(params, state):
        found, none, _ = this.etrace_grad(
            params, state, xs, ys, window=T, return_state=False, **SUM, **driver
        )
        assert none is None
        return found

    same(without(params, bare), right)
    assert jax.tree.structure(end.traces) == jax.tree.structure(this.init(params, carry).traces)


def test_vmap_over_seeds_is_a_loop(case):
    params, *rest = *data(NAME), RULES[case].driver(NAME)
    learner(case)  # out of the map: it may read a leak from the parameters
    many = jax.tree.map(lambda v: jnp.stack([v, 0.7 * v]), params)
    mapped = run_once(jax.vmap(lambda p: sequence(case, p, *rest)[0]), many)
    for k in range(2):
        alone, _ = program(case)(jax.tree.map(lambda v, k=k: v[k], many), *rest)
        same(jax.tree.map(lambda v, k=k: v[k], mapped), alone, 1e-9)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_single_and_half_precision(case, dtype):
    """Gradients have the parameters' dtype, traces at least float32, and the values are near those
    of float64.
    """
    narrow = jax.tree.map(lambda v: v.astype(dtype), data(NAME))
    params, carry, xs, _ = narrow
    this = RULES[case].learner(NAME, params, carry, xs[0])
    driver = jax.tree.map(lambda v: v.astype(dtype), RULES[case].driver(NAME))
    got = jax.jit(lambda *given: windowed(this, given, 3, **driver), compiler_options=QUICK)(
        *narrow
    )
    assert all(g.dtype == dtype for g in got.values())
    traces = this.rule.carrier.init(this.graph)
    assert {t.dtype for t in jax.tree.leaves(traces)} <= {jnp.dtype("float32")}
    wide, driver = jax.tree.map(lambda v: v.astype(jnp.float64), (narrow, driver))
    right, _ = program(case)(*wide, driver)
    off = apart(jax.tree.map(lambda v: v.astype(jnp.float64), got), right)
    assert max(off.values()) < (1e-4 if dtype == jnp.float32 else 0.1), off


@pytest.mark.parametrize(("algorithm", "target"), [("rflo", False), ("osttp", True)])
def test_matrices_are_drawn_as_numbers_inside_a_transformation_too(algorithm, target):
    """A program that is analysed under jit."""
    params, carry, xs, ys = data(NAME)
    key = {"feedback_key": 0} if target else {"random_feedback_key": 0}
    cell, more = EXAMPLES[NAME].cell, {"y_target": ys} if target else {}

    def run(p):
        this = braintrace.compile(cell, algorithm, xs[0], params=p, carry=carry, **key)
        state = this.init(p, carry)
        return this.etrace_grad(p, state, xs, ys, reset=RESET, **SUM, **more)[0]

    same(run(params), jax.jit(run)(params))
