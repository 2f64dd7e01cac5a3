"""Unmodified Equinox cells against two-evaluation oracles written out in plain JAX and against
BPTT, in float64; training; errors.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import CompilationError, UsageError
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

eqx = pytest.importorskip("equinox")
optax = pytest.importorskip("optax")

ZERO = jnp.zeros((B, N))


class Readout(eqx.Module):
    """A cell under a readout, called in Equinox's order, for one sample."""

    cell: eqx.Module
    out: eqx.nn.Linear
    activation: object

    def __init__(self, cell, key):
        self.cell = cell(IN, N, key=key)
        self.out = eqx.nn.Linear(N, OUT, key=key)
        self.activation = jnp.tanh

    def __call__(self, x, hidden):
        hidden = self.cell(x, hidden)
        h = hidden[0] if isinstance(hidden, tuple) else hidden
        return hidden, self.activation(self.out(h))


def under_readout(step):
    def both(p, carry, x, old=cells.keep, mix=cells.keep):
        carry, h = step(p.cell, carry, x, old, mix)
        return carry, jnp.tanh(h @ p.out.weight.T + p.out.bias)

    return both


CELLS = {
    "gru": (eqx.nn.GRUCell, cells.equinox_gru, ZERO + 0.1),
    "lstm": (eqx.nn.LSTMCell, cells.equinox_lstm, (ZERO + 0.1, ZERO - 0.2)),
}


def arrays(model):
    return eqx.filter(model, eqx.is_inexact_array)


@pytest.fixture(params=CELLS, scope="module")
def case(request):
    """A learner, the module, its data, and the oracle's and BPTT's gradients."""
    cell, step, carry = CELLS[request.param]
    model = Readout(cell, jax.random.key(0))
    xs, ys = data()
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=carry, vmap=True)
    marked = under_readout(step)
    oracle, bptt = (
        sequence_gradient(f, arrays(model), carry, xs, ys)
        for f in (two_evaluations(marked), marked)
    )
    assert_tells_apart(oracle, bptt)
    return learner, model, carry, xs, ys, oracle, bptt


@pytest.mark.parametrize("window", [1, 3, None])
def test_windows_equal_the_oracle(case, window):
    learner, model, carry, xs, ys, oracle, bptt = case
    state = learner.init(model, carry)
    found, state, info = learner.etrace_grad(
        model, state, xs, ys, loss_fn=sample_loss, window=window, reduction="sum"
    )
    assert_close(found, oracle)
    with pytest.raises(AssertionError):
        assert_close(found, bptt)
    assert info.losses.shape == (T, B) and state.steps == T
    assert found.activation is None and found.cell.hidden_size == N


def test_differentiating_a_call_equals_the_oracle(case):
    learner, model, carry, xs, ys, oracle, _ = case

    @eqx.filter_jit
    @eqx.filter_value_and_grad(has_aux=True)
    def loss(model, state, x, y):
        state, out = learner(model, state, x)
        return total_loss(out, y), state

    state, total = learner.init(model, carry), None
    for x, y in zip(xs, ys, strict=True):
        (_, state), one = loss(model, state, x, y)
        total = one if total is None else jax.tree.map(jnp.add, total, one)
    assert_close(total, oracle)


def test_certified_exact_means_equal_to_bptt(case):
    learner, model, carry, xs, ys, _, _ = case
    for options in (
        {},
        {
            "window": 3,
            "mask": jnp.ones((T, B)).at[2].set(0),
            "reset": jnp.zeros((T, B), bool).at[4, 1].set(True),
        },
    ):
        report = learner.check_gradients(
            model, learner.init(model, carry), xs, ys, loss_fn=sample_loss, **options
        )
        assert report.ok and report["out.weight"].certificate == "exact", report
        assert report["cell.weight_hh"].relative_error > 1e-3
    full = learner.check_gradients(
        model, learner.init(model, carry), xs, ys, loss_fn=sample_loss, multi_step=True, window=None
    )
    assert all(row.relative_error < 1e-8 for row in full.rows)


@pytest.mark.parametrize("name", CELLS)
def test_cells_as_they_are(name):
    """A bare cell returns its carry alone: the output is the hidden state."""
    cell, step, carry = CELLS[name]
    xs, _ = data()
    model = cell(IN, N, key=jax.random.key(1))
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=carry, vmap=True)
    state, out = learner(model, learner.init(model, carry), xs[0])
    expected, h = step(model, carry, xs[0])
    assert_close(state.carry, expected)
    np.testing.assert_allclose(out, h, rtol=1e-12)


class CarryFirst(eqx.Module):
    """A batched user's module, with dropout whose key comes with the input, and an integer
    array.
    """

    w: jax.Array
    u: jax.Array
    order: jax.Array
    drop: eqx.nn.Dropout
    scale: float = 0.5

    def __call__(self, carry, x):
        x, key = x
        h = 0.8 * carry + self.drop(
            jnp.tanh(x[:, self.order] @ self.w + self.scale * carry @ self.u), key=key
        )
        return h, h[:, :OUT]


def carry_first():
    keys = jax.random.split(jax.random.key(0), 2)
    return CarryFirst(
        0.5 * jax.random.normal(keys[0], (IN, N)),
        0.5 * jax.random.normal(keys[1], (N, N)),
        jnp.array([2, 0, 1]),
        eqx.nn.Dropout(0.3),
    )


def call(model, carry, x):
    return model(carry, x)


def test_another_order_of_arguments():
    model, (xs, ys) = carry_first(), data()
    inputs = xs, jax.random.split(jax.random.key(3), T)
    learner = braintrace.compile(model, "d_rtrl", (xs[0], inputs[1][0]), carry=ZERO, call=call)

    def marked(model, h, x, old=cells.keep, mix=cells.keep):
        x, key = x
        drive = x[:, model.order] @ model.w + model.scale * mix(old(h)) @ model.u
        h = 0.8 * h + model.drop(jnp.tanh(drive), key=key)
        return h, h[:, :OUT]

    def gradient(function):
        return eqx.filter_grad(
            lambda model: jnp.sum(
                jax.vmap(sample_loss)(
                    jax.lax.scan(lambda h, x: function(model, h, x), ZERO, inputs)[1], ys
                )
            )
        )(model)

    oracle, bptt = gradient(two_evaluations(marked)), gradient(marked)
    assert_tells_apart(oracle, bptt)
    found, *_ = learner.etrace_grad(
        model, learner.init(model, ZERO), inputs, ys, loss_fn=sample_loss, window=3, reduction="sum"
    )
    assert_close(found, oracle)
    assert found.order is None and found.scale is None
    rows = [row.path for row in learner.graph.parameters]
    assert rows == ["w", "u"]
    turned = eqx.tree_at(
        lambda m: m.order, model, jnp.array([0, 1, 2])
    )  # constants are read at each call
    other, *_ = learner.etrace_grad(
        turned, learner.init(turned, ZERO), inputs, ys, loss_fn=sample_loss, reduction="sum"
    )
    assert not jnp.allclose(other.w, found.w)


@pytest.mark.parametrize("mode", ["A", "O"])
def test_training_with_optax(case, mode):
    """`eqx.filter_jit`, optax and `eqx.apply_updates`; and `etrace_fit`, which does the same."""
    learner, model, carry, xs, ys, _, _ = case
    tx = optax.adamw(1e-2)

    @eqx.filter_jit
    def train_step(model, moments, state, x, y):
        gradients, state, info = learner.etrace_grad(model, state, x, y, loss_fn=sample_loss)
        updates, moments = tx.update(gradients, moments, arrays(model))
        return eqx.apply_updates(model, updates), moments, state, info.losses.mean()

    now, moments, state = model, tx.init(learner.trained(model)), learner.init(model, carry)
    losses = []
    for part in [slice(0, T)] if mode == "A" else [slice(t, t + 1) for t in range(T)]:
        now, moments, state, loss = train_step(now, moments, state, xs[part], ys[part])
        losses.append(loss)
    assert now.activation is jnp.tanh and jnp.isfinite(jnp.stack(losses)).all()
    fit = learner.etrace_fit(
        model,
        tx.init(learner.trained(model)),
        learner.init(model, carry),
        xs,
        ys,
        optimizer=tx,
        mode=mode,
        loss_fn=sample_loss,
    )
    assert_close(arrays(fit[0]), arrays(now))
    assert fit[0].activation is jnp.tanh
    assert jnp.abs(fit[0].cell.weight_hh - model.cell.weight_hh).max() > 1e-3


def test_inside_scan_and_vmap(case):
    learner, model, carry, xs, ys, oracle, _ = case
    params, static = eqx.partition(model, eqx.is_array)

    def gradient(params):
        model = eqx.combine(params, static)
        start = learner.init(model, carry)
        return learner.etrace_grad(
            model, start, xs, ys, loss_fn=sample_loss, reduction="sum", return_state=False
        )[0]

    several = jax.vmap(gradient)(jax.tree.map(lambda v: jnp.stack([v, 0.5 * v]), params))
    assert_close(jax.tree.map(lambda v: v[0], several), oracle)
    model_of = lambda out: out.sum()
    last, outs = jax.lax.scan(lambda s, x: learner(model, s, x), learner.init(model, carry), xs)
    evolved, same = learner.etrace_evolve(model, learner.init(model, carry), xs)
    np.testing.assert_allclose(model_of(outs), model_of(same), rtol=1e-10)
    assert_close(last.carry, evolved.carry)
    assert_close(last.traces, evolved.traces)
    assert_close(
        learner.etrace_evolve(model, learner.init(model, carry), xs, traces=False)[0].traces,
        learner.init(model, carry).traces,
    )


class NotAStep(eqx.Module):
    w: jax.Array

    def __call__(self, x, h):
        return x @ self.w, h, h


class NoCall(eqx.Module):
    w: jax.Array


class Weightless(eqx.Module):
    def __call__(self, x, h):
        return h


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (
            lambda: eqx.nn.GRUCell(IN, N, key=jax.random.key(0)),
            {},
            UsageError,
            "The carry is missing",
        ),
        (lambda: eqx.nn.GRUCell, {"carry": ZERO}, UsageError, "make an instance of the class"),
        (
            carry_first,
            {"carry": ZERO},
            UsageError,
            r"carry first\.\n  got:      CarryFirst\(carry, x\)",
        ),
        (
            lambda: NotAStep(jnp.ones((IN, N))),
            {"carry": ZERO},
            CompilationError,
            "neither a carry nor a pair",
        ),
        (lambda: NoCall(jnp.ones((IN, N))), {"carry": ZERO}, UsageError, "cannot be called"),
        (lambda: Weightless(), {"carry": ZERO}, UsageError, "no parameters to learn"),
        (
            lambda: Weightless(),
            {"carry": ZERO, "wrt": 1},
            UsageError,
            "wrt: not for an Equinox module",
        ),
        (
            lambda: Weightless(),
            {"carry": ZERO, "seed": 1},
            UsageError,
            "seed: not for an Equinox module",
        ),
    ],
)
def test_models_that_cannot_be_compiled(make, options, error, message):
    with pytest.raises(error, match=message):
        braintrace.compile(make(), "d_rtrl", jnp.zeros((B, IN)), **options)


def test_a_module_that_changed():
    model, (xs, _) = carry_first(), data()
    x = xs[0], jax.random.key(3)
    learner = braintrace.compile(model, "d_rtrl", x, carry=ZERO, call=call)
    state = learner.init(model, ZERO)
    with pytest.raises(UsageError, match=r"\{'drop.inference': True\}"):
        learner(eqx.nn.inference_mode(model), state, x)
    with pytest.raises(UsageError, match="not like the one that was compiled"):
        learner(Weightless(), state, x)
    with pytest.raises(UsageError, match="wrong shape at w"):
        learner(eqx.tree_at(lambda m: m.w, model, jnp.ones((IN, N + 1))), state, x)


def test_the_kind_of_learner():
    model = eqx.nn.GRUCell(IN, N, key=jax.random.key(0))
    learner = braintrace.compile(
        model, "pp_prop", jnp.zeros((B, IN)), carry=ZERO, vmap=True, decay_or_rank=0.9
    )
    assert isinstance(learner, braintrace.EquinoxLearner)
    assert "weight_hh" in str(learner.report)
