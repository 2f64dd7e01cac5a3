"""NNX modules that keep state, statistics and random streams; training with `nnx.Optimizer`;
transformations.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace

from .cells import IN, OUT, B, N, T, assert_close, data, sample_loss, total_loss

nnx = pytest.importorskip("flax.nnx")
optax = pytest.importorskip("optax")


class Hidden(nnx.Variable):
    """State of a user's module."""


class Cell(nnx.Module):
    """A leaky tanh layer with a carry."""

    def __init__(self, rngs, n=N):
        self.w = nnx.Linear(IN, n, param_dtype=jnp.float64, rngs=rngs)
        self.u = nnx.Linear(n, n, use_bias=False, param_dtype=jnp.float64, rngs=rngs)
        self.out = nnx.Linear(n, OUT, param_dtype=jnp.float64, rngs=rngs)

    def step(self, h, x):
        return 0.8 * h + 0.2 * jnp.tanh(self.w(x) + self.u(h))

    def __call__(self, h, x):
        h = self.step(h, x)
        return h, self.out(h)


class Stateful(Cell):
    """The same with its state in a Variable."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.h = Hidden(jnp.zeros((B, N)))

    def __call__(self, x):
        self.h.set_value(self.step(self.h.get_value(), x))
        return self.out(self.h.get_value())


class Noisy(Stateful):
    """With dropout on the way in and on the way out, from two streams."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.first = nnx.Dropout(0.3, rngs=rngs)
        self.second = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return self.second(super().__call__(self.first(x)))


class Normalised(Cell):
    """With statistics of the batch; they are float32, as flax makes them."""

    def __init__(self, rngs):
        super().__init__(rngs)
        self.norm = nnx.BatchNorm(IN, rngs=rngs)

    def __call__(self, h, x):
        return super().__call__(h, self.norm(x.astype(jnp.float32)).astype(h.dtype))


ZERO = jnp.zeros((B, N))


def carried(**options):
    xs, ys = data()
    model = Cell(nnx.Rngs(0))
    return braintrace.compile(model, "d_rtrl", xs[0], carry=ZERO, **options), model, xs, ys


def test_state_in_variables_is_the_same_as_in_a_carry():
    learner, _, xs, ys = carried()
    model = Stateful(nnx.Rngs(0))
    other = braintrace.compile(model, "d_rtrl", xs[0])
    reset = jnp.zeros((T, B), bool).at[3, 1].set(True).at[5].set(True)
    mask = jnp.arange(T)[:, None] < jnp.array([7, 4, 5, 1])
    for options in ({}, {"reset": reset, "mask": mask, "window": 3}):
        (a, info), (b, other_info) = (
            f.etrace_grad(xs, ys, loss_fn=sample_loss, **options) for f in (learner, other)
        )
        assert_close(nnx.to_pure_dict(a), nnx.to_pure_dict(b))
        np.testing.assert_allclose(info.losses, other_info.losses, rtol=1e-12)
        np.testing.assert_allclose(model.h.get_value(), learner.carry.get_value(), rtol=1e-12)
    assert not jnp.allclose(
        info.losses, jax.vmap(sample_loss)(learner.etrace_evolve(xs), ys)
    )  # control: the reset had an effect
    other.reset_state(model=True)
    assert not model.h.get_value().any() and other.steps[...] == 0
    assert not any(v.any() for v in jax.tree.leaves(other.traces.get_value()))
    learner.reset_state()
    assert learner.carry.get_value().any(), "the carry goes on"


def test_evolving_moves_the_traces_on():
    learner, _, xs, ys = carried()
    twin, *_ = carried()
    for x in xs[:4]:
        learner(x)
    twin.etrace_evolve(xs[:4])
    assert_close(twin.traces.get_value(), learner.traces.get_value())
    assert twin.steps[...] == 4
    (a, _), (b, _) = (f.etrace_grad(xs[4:], ys[4:], loss_fn=sample_loss) for f in (learner, twin))
    assert_close(nnx.to_pure_dict(a), nnx.to_pure_dict(b))
    before = jax.tree.leaves(twin.traces.get_value())
    twin.etrace_evolve(xs, traces=False)
    assert all(
        x is y for x, y in zip(before, jax.tree.leaves(twin.traces.get_value()), strict=True)
    )


def test_the_traces_can_be_split_off():
    learner, *_ = carried()
    graphdef, traces, rest = nnx.split(learner, type(learner.traces), ...)
    assert list(traces) == ["traces"] and "traces" not in rest
    assert_close(nnx.merge(graphdef, traces, rest).traces.get_value(), learner.traces.get_value())


def test_random_streams_are_those_of_the_plain_model():
    xs, ys = data()
    plain, model, third = (Noisy(nnx.Rngs(0)) for _ in range(3))
    expected = jnp.stack([plain(x) for x in xs])
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    assert model.first.rngs.count[...] == 0, "compiling draws nothing"
    np.testing.assert_allclose(jnp.stack([learner(x) for x in xs]), expected, rtol=1e-12)
    assert len({tuple(np.flatnonzero(v == 0)) for v in np.asarray(expected)}) > 1, (
        "a new mask at each step"
    )
    for drop, expected_drop in ((model.first, plain.first), (model.second, plain.second)):
        assert drop.rngs.count[...] == expected_drop.rngs.count[...] >= T
    other = braintrace.compile(third, "d_rtrl", xs[0])
    _, info = other.etrace_grad(
        xs, ys, loss_fn=lambda out, y: (sample_loss(out, y), out), has_aux=True, window=3
    )
    np.testing.assert_allclose(info.aux, expected, rtol=1e-12)
    again = other.etrace_evolve(xs)
    other.reset_state(model=True)
    assert not jnp.allclose(other.etrace_evolve(xs), again), "streams go on after a reset"


def test_gradients_with_dropout_equal_bptt_where_certified():
    xs, ys = data()
    model = Noisy(nnx.Rngs(0))
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    report = learner.check_gradients(xs, ys, loss_fn=sample_loss, window=3)
    assert report.ok and report["out.kernel"].certificate == "exact"
    assert report["u.kernel"].relative_error > 1e-3
    assert {row.path for row in report.rows} == {
        "w.kernel",
        "w.bias",
        "u.kernel",
        "out.kernel",
        "out.bias",
    }


@pytest.mark.filterwarnings("ignore:scatter inputs:FutureWarning")
def test_statistics_are_those_of_the_plain_model():
    xs, ys = data()
    plain, model = Normalised(nnx.Rngs(0)), Normalised(nnx.Rngs(0))
    h = ZERO
    for x in xs:
        h, _ = plain(h, x)
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=ZERO)
    learner.etrace_grad(xs, ys, loss_fn=sample_loss, window=3)
    np.testing.assert_allclose(model.norm.mean[...], plain.norm.mean[...], rtol=1e-6)
    np.testing.assert_allclose(model.norm.var[...], plain.norm.var[...], rtol=1e-6)
    np.testing.assert_allclose(learner.carry.get_value(), h, rtol=1e-6)
    before = model.norm.mean[...], learner.carry.get_value()
    learner.etrace_grad(xs, ys, loss_fn=sample_loss, return_state=False)
    assert (model.norm.mean[...] != before[0]).any() and (
        learner.carry.get_value() == before[1]
    ).all()
    learner.reset_state(model=True)
    assert (model.norm.mean[...] != 0).all(), "statistics are not reset"


def test_training_under_jit_is_training_by_hand():
    """`nnx.jit` around learner and optimizer, against the same steps with optax on the functional
    front end.
    """
    learner, model, xs, ys = carried()
    tx = optax.adam(1e-2)
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    @nnx.jit
    def train_step(learner, optimizer, x, y):
        loss, gradients = learner.value_and_grad(x, y, loss_fn=sample_loss)
        optimizer.update(learner.model, gradients)
        return loss

    graphdef, state = nnx.split(Cell(nnx.Rngs(0)))
    params = nnx.to_pure_dict(state)

    def function(params, h, x):
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(graphdef, state)(h, x)

    other = braintrace.compile(function, "d_rtrl", xs[0], params=params, carry=ZERO)
    moments, now = tx.init(params), other.init(params, ZERO)
    for _ in range(3):
        for x, y in zip(xs, ys, strict=True):
            loss = train_step(learner, optimizer, x, y)
            gradients, now, info = other.etrace_grad(
                params, now, x[None], y[None], loss_fn=sample_loss
            )
            updates, moments = tx.update(gradients, moments, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_allclose(loss, info.losses.mean(), rtol=1e-9)
    assert_close(nnx.to_pure_dict(nnx.state(model, nnx.Param)), params, 1e-8)
    np.testing.assert_allclose(
        learner.traces.get_value()[0][0][0], now.traces[0][0][0], rtol=1e-8, atol=1e-10
    )


def test_weights_are_read_from_the_live_model():
    learner, model, xs, ys = carried()
    before = learner(xs[0])
    gradients, _ = learner.etrace_grad(xs, ys, loss_fn=sample_loss)
    nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param).update(model, gradients)
    learner.reset_state(model=True)
    after = learner(xs[0])
    assert not jnp.allclose(before, after)
    np.testing.assert_allclose(after, model(ZERO, xs[0])[1], rtol=1e-12)


@pytest.mark.parametrize("mode", ["A", "O"])
def test_fit(mode):
    learner, model, xs, ys = carried()
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=learner.wrt)
    twin, other, *_ = carried()
    by_hand = nnx.Optimizer(other, optax.adam(1e-2), wrt=nnx.Param)
    mask = jnp.ones((T, B)).at[2].set(0)
    info = learner.etrace_fit(
        xs, ys, loss_fn=sample_loss, optimizer=optimizer, mode=mode, mask=mask
    )
    assert info.losses.shape == (T, B)
    for part in [slice(0, T)] if mode == "A" else [slice(t, t + 1) for t in range(T)]:
        by_hand.update(
            other, twin.etrace_grad(xs[part], ys[part], loss_fn=sample_loss, mask=mask[part])[0]
        )
    assert_close(nnx.to_pure_dict(nnx.state(model)), nnx.to_pure_dict(nnx.state(other)))
    assert optimizer.step[...] == (1 if mode == "A" else T)
    with pytest.raises(braintrace.UsageError, match="Unknown mode"):
        learner.etrace_fit(xs, ys, loss_fn=sample_loss, optimizer=optimizer, mode="B")


def test_split_and_merge_inside_a_scan():
    """The functional form of an NNX module is that of its learner."""
    learner, _, xs, ys = carried()
    twin, *_ = carried()
    expected, _ = twin.etrace_grad(xs, ys, loss_fn=total_loss, reduction="sum")
    graphdef, state = nnx.split(learner)

    def one(state, at):
        now = nnx.merge(graphdef, state)
        _, gradients = now.value_and_grad(*at, loss_fn=total_loss)
        return nnx.state(now), gradients

    state, parts = jax.jit(lambda state: jax.lax.scan(one, state, (xs, ys)))(state)
    assert_close(
        nnx.to_pure_dict(jax.tree.map(lambda v: v.sum(0), parts)), nnx.to_pure_dict(expected)
    )
    nnx.update(learner, state)
    assert_close(learner.carry.get_value(), twin.carry.get_value())
    assert learner.steps[...] == T


def test_vmap_over_initial_weights():
    xs, ys = data()
    learner, model, *_ = carried()
    graphdef, params = nnx.split(model)
    several = jax.tree.map(lambda v: jnp.stack([v, 0.5 * v]), params)

    def gradient(params):
        one = braintrace.compile(nnx.merge(graphdef, params), "d_rtrl", xs[0], carry=ZERO)
        return one.etrace_grad(xs, ys, loss_fn=sample_loss)[0]

    found = jax.vmap(gradient)(several)
    expected, _ = learner.etrace_grad(xs, ys, loss_fn=sample_loss)
    assert_close(nnx.to_pure_dict(jax.tree.map(lambda v: v[0], found)), nnx.to_pure_dict(expected))


def test_a_module_of_one_sample():
    xs, ys = data()
    learner, *_ = carried()
    other, *_ = carried(vmap=True)
    (a, _), (b, _) = (f.etrace_grad(xs, ys, loss_fn=sample_loss) for f in (learner, other))
    assert_close(nnx.to_pure_dict(a), nnx.to_pure_dict(b))


class TwoInputs(Stateful):
    def __call__(self, x, gain):
        return gain[:, None] * super().__call__(x)


def test_several_inputs():
    xs, ys = data()
    learner, *_ = carried()
    other = braintrace.compile(TwoInputs(nnx.Rngs(0)), "d_rtrl", xs[0], jnp.ones(B))
    expected, _ = learner.etrace_grad(xs, ys, loss_fn=sample_loss)
    found, _ = other.etrace_grad((xs, jnp.ones((T, B))), ys, loss_fn=sample_loss)
    assert_close(nnx.to_pure_dict(found), nnx.to_pure_dict(expected))
    with pytest.raises(braintrace.UsageError, match="The model takes several inputs"):
        other.etrace_grad(xs, ys, loss_fn=sample_loss)


def test_a_filter_selects_what_is_trained():
    xs, ys = data()
    model = Cell(nnx.Rngs(0))
    only = nnx.All(nnx.Param, nnx.PathContains("out"))
    learner = braintrace.compile(model, "d_rtrl", xs[0], carry=ZERO, wrt=only)
    whole, *_ = carried()
    gradients, _ = learner.etrace_grad(xs, ys, loss_fn=sample_loss)
    expected, _ = whole.etrace_grad(xs, ys, loss_fn=sample_loss)
    assert_close(nnx.to_pure_dict(gradients), {"out": nnx.to_pure_dict(expected)["out"]})
    assert [row.path for row in learner.graph.parameters] == ["out.bias", "out.kernel"]
    assert not learner.graph.sites
    nnx.Optimizer(model, optax.sgd(0.1), wrt=learner.wrt).update(model, gradients)


def test_a_loss_that_is_not_finite_leaves_everything_as_it_was():
    xs, ys = data()
    model = Noisy(nnx.Rngs(0))
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    before = jax.tree.leaves(nnx.state(learner))
    with pytest.raises(braintrace.UsageError, match="The loss is not finite"):
        learner.etrace_grad(xs, ys.at[2].set(jnp.nan), loss_fn=sample_loss)
    assert all(a is b for a, b in zip(before, jax.tree.leaves(nnx.state(learner)), strict=True))
