"""Unmodified cells of Flax NNX against two-evaluation oracles written out in plain JAX, and against
BPTT, in float64.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from zoo._case import two_evaluations

from . import cells
from .cells import (
    IN,
    OUT,
    B,
    N,
    T,
    assert_close,
    assert_tells_apart,
    data,
    sample_loss,
    sequence_gradient,
    total_loss,
)

nnx = pytest.importorskip("flax.nnx")


class Readout(nnx.Module):
    """A cell under a readout."""

    def __init__(self, cell, rngs):
        self.cell = cell(IN, N, param_dtype=jnp.float64, rngs=rngs)
        self.out = nnx.Linear(N, OUT, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, carry, x):
        carry, h = self.cell(carry, x)
        return carry, self.out(h)

    def initialize_carry(self, shape, rngs):
        return self.cell.initialize_carry(shape, rngs)


class Stack(nnx.Module):
    """An LSTM on a GRU under a readout."""

    def __init__(self, rngs):
        self.lower = nnx.GRUCell(IN, N, param_dtype=jnp.float64, rngs=rngs)
        self.upper = nnx.OptimizedLSTMCell(N, N, param_dtype=jnp.float64, rngs=rngs)
        self.out = nnx.Linear(N, OUT, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, carry, x):
        first, h = self.lower(carry[0], x)
        second, h = self.upper(carry[1], h)
        return (first, second), self.out(h)

    def initialize_carry(self, shape, rngs):
        return self.lower.initialize_carry(shape, rngs), self.upper.initialize_carry(
            (*shape[:-1], N), rngs
        )


MODELS = {
    "gru": (functools.partial(Readout, nnx.GRUCell), cells.under_dense(cells.nnx_gru)),
    "lstm": (functools.partial(Readout, nnx.LSTMCell), cells.under_dense(cells.nnx_lstm)),
    "optimized lstm": (
        functools.partial(Readout, nnx.OptimizedLSTMCell),
        cells.under_dense(cells.nnx_optimized_lstm),
    ),
    "simple": (
        functools.partial(Readout, functools.partial(nnx.SimpleCell, dtype=jnp.float64)),
        cells.under_dense(cells.nnx_simple),
    ),
    "stack": (Stack, cells.stacked(cells.nnx_gru, cells.nnx_optimized_lstm)),
}


def pure(state):
    return nnx.to_pure_dict(state)


@pytest.fixture(params=MODELS, scope="module")
def case(request):
    """A learner, its data, and the oracle's and BPTT's gradients."""
    make, step = MODELS[request.param]
    model = make(rngs=nnx.Rngs(0))
    carry = jax.tree.map(lambda v: v + 0.1, model.initialize_carry((B, IN), nnx.Rngs(1)))
    params = pure(nnx.state(model, nnx.Param))
    xs, ys = data()
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=carry)
    oracle, bptt = (
        sequence_gradient(f, params, carry, xs, ys) for f in (two_evaluations(step), step)
    )
    assert_tells_apart(oracle, bptt)
    return learner, xs, ys, oracle, bptt, (step, params, carry)


def reset_learner(learner):
    learner.reset_state(model=True)
    return learner


def test_the_step_is_the_cell(case):
    learner, xs, _, _, _, (step, params, carry) = case
    np.testing.assert_allclose(
        reset_learner(learner)(xs[0]), step(params, carry, xs[0])[1], rtol=1e-12
    )


def test_step_by_step_equals_the_oracle(case):
    learner, xs, ys, oracle, _, _ = case
    reset_learner(learner)
    parts = [
        learner.value_and_grad(x, y, loss_fn=total_loss)[1] for x, y in zip(xs, ys, strict=True)
    ]
    assert_close(pure(jax.tree.map(lambda *v: sum(v), *parts)), oracle)
    assert learner.steps[...] == T


def test_differentiating_a_call_equals_the_oracle(case):
    learner, xs, ys, oracle, _, _ = case
    reset_learner(learner)
    gradient = nnx.jit(nnx.grad(lambda learner, x, y: total_loss(learner(x), y)))
    parts = [gradient(learner, x, y)["model"] for x, y in zip(xs, ys, strict=True)]
    assert_close(pure(jax.tree.map(lambda *v: sum(v), *parts)), oracle)
    assert learner.steps[...] == T


@pytest.mark.parametrize("window", [1, 3, None])
def test_windows_equal_the_oracle(case, window):
    learner, xs, ys, oracle, bptt, _ = case
    gradients, info = reset_learner(learner).etrace_grad(
        xs, ys, loss_fn=sample_loss, window=window, reduction="sum"
    )
    assert isinstance(gradients, nnx.State)
    assert_close(pure(gradients), oracle)
    with pytest.raises(AssertionError):
        assert_close(pure(gradients), bptt)
    assert info.losses.shape == (T, B)


def test_certified_exact_means_equal_to_bptt(case):
    learner, xs, ys, _, _, _ = case
    report = reset_learner(learner).check_gradients(xs, ys, loss_fn=sample_loss)
    assert report.ok, report
    assert learner.graph.exactness("out.kernel") == "exact"
    assert any(row.relative_error > 1e-3 for row in report.rows)


@pytest.mark.parametrize("case", ["gru"], indirect=True)
@pytest.mark.parametrize("algorithm", ["pp_prop", "eprop", "ostl_recurrent", "ottt"])
def test_other_algorithms_equal_the_functional_front_end(case, algorithm):
    learner, xs, ys, _, _, (step, params, carry) = case
    options = {"pp_prop": {"decay_or_rank": 0.9}, "ottt": {"leak": 0.9}}.get(algorithm, {})
    mine = braintrace.compile(learner.model, algorithm, xs[0], carry=carry, **options)
    other = braintrace.compile(step, algorithm, xs[0], params=params, carry=carry, **options)
    expected, *_ = other.etrace_grad(
        params, other.init(params, carry), xs, ys, loss_fn=sample_loss, window=3
    )
    found, _ = mine.etrace_grad(xs, ys, loss_fn=sample_loss, window=3)
    assert_close(pure(found), expected)
