"""Every algorithm on brainstate modules: its gradients are those of functions."""

import dataclasses

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace.core.engine import Rule
from braintrace.core.traces import PerParameter
from braintrace.rules import Algorithm

T, B, I, N, O = 5, 2, 3, 4, 2
CASES = {
    "d_rtrl": {},
    "pp_prop": {"decay_or_rank": 0.7},
    "eprop": {"kappa_filter_decay": 0.5, "feedback": "random", "random_feedback_key": 1},
    "ostl_recurrent": {},
    "ostl_feedforward": {"decay_or_rank": 3},
    "otpe": {"leak": 0.8},
    "ottt": {"leak": "model"},
    "osttp": {"feedback_key": 2},
}


class Leaky(brainstate.nn.Module):
    """h <- 0.8 h + x W + U tanh(h), read out linearly."""

    def __init__(self):
        super().__init__()
        random = np.random.default_rng(0)
        self.w = brainstate.ParamState(jnp.asarray(random.normal(size=(I, N))))
        self.u = brainstate.ParamState(jnp.asarray(random.normal(size=(N, N)) * 0.3))
        self.o = brainstate.ParamState(jnp.asarray(random.normal(size=(N, O))))

    def init_state(self, batch_size=None, **_):
        self.h = brainstate.HiddenState(jnp.zeros((batch_size, N)))

    def update(self, x):
        self.h.value = 0.8 * self.h.value + x @ self.w.value + jnp.tanh(self.h.value) @ self.u.value
        return jnp.tanh(self.h.value) @ self.o.value


def cell(p, h, x):
    h = 0.8 * h + x @ p["w"] + jnp.tanh(h) @ p["u"]
    return h, jnp.tanh(h) @ p["o"]


@pytest.fixture(scope="module")
def data():
    random = np.random.default_rng(1)
    return jnp.asarray(random.normal(size=(T, B, I))), jnp.asarray(random.normal(size=(T, B, O)))


def loss(out, y):
    return jnp.sum((out - y) ** 2, -1)


def options_of(name):
    return dict(CASES[name], leak=0.8) if name == "ottt" else CASES[name]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("window", [1, 3])
def test_both_front_ends_agree(name, window, data):
    xs, ys = data
    model = Leaky()
    learner = braintrace.compile(model, name, xs[0], batch_size=B, **options_of(name))
    extra = {"y_target": ys} if name == "osttp" else {}
    got = learner.etrace_grad(
        xs, ys, step_fn=lambda x, y: loss(learner(x), y), window=window, **extra
    )
    params = {k: v.value for k, v in (("w", model.w), ("u", model.u), ("o", model.o))}
    plain = braintrace.compile(
        cell, name, xs[0], params=params, carry=jnp.zeros((B, N)), **options_of(name)
    )
    want, _, _ = plain.etrace_grad(
        params, plain.init(params, jnp.zeros((B, N))), xs, ys, loss_fn=loss, **extra
    )
    for key, value in want.items():
        np.testing.assert_allclose(got[(key,)], value, rtol=1e-9, atol=1e-12)
        assert np.abs(value).max() > 0
    assert set(learner.get_etrace_of(model.w))


def test_a_leak_is_read_from_the_model(data):
    def linear(p, h, x):
        h = 0.8 * h + x @ p["w"]
        return h, h @ p["o"]

    params = {"w": jnp.ones((I, N)), "o": jnp.ones((N, O))}
    learner = braintrace.compile(
        linear, "ottt", data[0][0], params=params, carry=jnp.zeros((B, N)), leak="model"
    )
    assert learner.rule.carrier.leaks == (pytest.approx(0.8),)


def test_a_leak_that_is_not_constant_is_refused(data):
    with pytest.raises(braintrace.CompilationError, match="not constant"):
        params = {"w": jnp.ones((I, N)), "u": jnp.ones((N,)), "o": jnp.ones((N, O))}
        braintrace.compile(
            lambda p, h, x: ((h2 := jnp.tanh(h * p["u"] + x @ p["w"])), h2 @ p["o"]),
            "ottt",
            data[0][0],
            params=params,
            carry=jnp.zeros((B, N)),
            leak="model",
        )


class Sgd:
    """The smallest optimiser."""

    def __init__(self, states, rate):
        self.states, self.rate = states, rate

    def update(self, gradients):
        for key, gradient in gradients.items():
            self.states[key].value = self.states[key].value - self.rate * gradient


@pytest.mark.parametrize("mode", ["A", "O"])
def test_fit_updates_once_or_at_every_step(mode, data):
    xs, ys = data
    model = Leaky()
    learner = braintrace.compile(model, "ottt", xs[0], batch_size=B, leak=0.8, mode=mode)
    before = jax.tree.map(jnp.copy, model.w.value)
    step = lambda x, y: loss(learner(x), y).mean()
    losses = learner.etrace_fit(xs, ys, step_fn=step, optimizer=Sgd(learner.param_states, 1e-2))
    assert losses.shape == (T,)
    assert jnp.abs(model.w.value - before).max() > 0
    learner.reset_state(model=True)
    again = learner.etrace_fit(xs, ys, step_fn=step, optimizer=Sgd(learner.param_states, 1e-2))
    assert again.mean() < losses.mean()


def fitted(data, mode, options, step=None, model=None):
    """The model after `etrace_fit` from one start, and what it returned."""
    xs, ys = data
    model = model or Leaky()
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=B)
    step = step or (lambda learner: lambda x, y: loss(learner(x), y).mean())
    got = learner.etrace_fit(
        xs,
        ys,
        step_fn=step(learner),
        optimizer=Sgd(learner.param_states, 1e-2),
        mode=mode,
        **options,
    )
    return model, got


@pytest.mark.parametrize("mode", ["A", "O"])
def test_fit_returns_aux(mode, data):
    def step(learner):
        def step_fn(x, y):
            out = learner(x)
            return loss(out, y).mean(), {"out": out}

        return step_fn

    model, (losses, aux) = fitted(data, mode, {"has_aux": True}, step)
    assert losses.shape == (T,) and aux["out"].shape == (T, B, O)
    np.testing.assert_allclose(losses, loss(aux["out"], data[1]).mean(-1), rtol=1e-12)
    plain, alone = fitted(data, mode, {})
    np.testing.assert_allclose(losses, alone, rtol=1e-12)
    np.testing.assert_allclose(model.u.value, plain.u.value, rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{"return_state": False}, {"window": 3}, {"chunk_size": 3}, {"loss_output": "per_step"}],
)
def test_fit_at_every_step_moves_the_states_on_whatever_the_window(options, data):
    model, losses = fitted(data, "O", options)
    plain, wanted = fitted(data, "O", {})
    np.testing.assert_allclose(losses, wanted, rtol=1e-12)
    np.testing.assert_allclose(model.u.value, plain.u.value, rtol=1e-12)
    first = fitted((data[0][1:], data[1][1:]), "O", {})[1][0]
    assert jnp.abs(losses[1] - first) > 1e-3, (
        "control: the second step starts at the state after the first"
    )


def test_fit_on_the_whole_may_return_a_total(data):
    _, total = fitted(data, "A", {"loss_output": "total"})
    _, losses = fitted(data, "A", {})
    np.testing.assert_allclose(total, losses.mean(), rtol=1e-12)


@pytest.mark.parametrize(
    ("mode", "options", "words"),
    [
        ("O", {"loss_output": "total"}, "there is no total of the losses"),
        ("O", {"loss_output": "scalar"}, "there is no total of the losses"),
        ("O", {"loss_output": "sum"}, "Unknown loss_output"),
        ("A", {"return_value": False}, "etrace_fit has no return_value"),
        ("O", {"return_value": True}, "etrace_fit has no return_value"),
    ],
)
def test_fit_refuses_what_does_not_fit(mode, options, words, data):
    model = Leaky()
    before = model.w.value
    with pytest.raises(braintrace.UsageError, match=words):
        fitted(data, mode, options, model=model)
    assert jnp.array_equal(model.w.value, before) and not jnp.any(model.h.value)


@pytest.mark.parametrize("name", ["d_rtrl", "ostl_recurrent", "eprop"])
def test_check_gradients_compares_with_bptt(name, data):
    xs, ys = data
    model = Leaky()
    learner = braintrace.compile(model, name, xs[0], batch_size=B, **options_of(name))
    mask = jnp.ones((T, B)).at[3:, 0].set(0)
    h = model.h.value
    report = learner.check_gradients(
        xs,
        ys,
        step_fn=lambda x, y: loss(learner(x), y),
        mask=mask,
        reduction="sum",
        windows=(None, 1),
    )
    assert report.ok and model.h.value is h
    params = {k: v.value for k, v in (("w", model.w), ("u", model.u), ("o", model.o))}

    def total(p):
        _, outs = jax.lax.scan(lambda c, x: cell(p, c, x), jnp.zeros((B, N)), xs)
        return (jax.vmap(loss)(outs, ys) * mask).sum()

    want = jax.grad(total)(params)
    for row in report.rows:
        key = next(k for k in want if f"'{k}'" in row.path)
        np.testing.assert_allclose(row.reference_norm, np.linalg.norm(want[key]), rtol=1e-9)
        same = row.relative_error < 1e-8
        assert same == (str(row.certificate) == "exact")
    assert any(row.relative_error > 1e-3 for row in report.rows) == (name != "ostl_recurrent")


@dataclasses.dataclass(frozen=True)
class OwnRule(Algorithm):
    """D-RTRL with a clip, and an option of its own."""

    name = "Own"

    clip: float = 1.0

    def parts(self):
        return Rule("own", PerParameter(clip=self.clip))


def test_an_algorithm_of_ones_own(data):
    """A dataclass and its parts are all that every front end needs."""
    x, model = data[0][0], Leaky()
    learner = braintrace.compile(model, OwnRule, x, batch_size=B, clip=3.0)
    assert type(learner).__name__ == "Own" and isinstance(learner, braintrace.ETraceVjpAlgorithm)
    assert learner.functional.rule.carrier.clip == 3.0
    params = {"w": jnp.ones((I, N)), "u": jnp.ones((N, N)), "o": jnp.ones((N, O))}
    given = {"params": params, "carry": jnp.zeros((B, N))}
    assert braintrace.compile(cell, OwnRule, x, clip=2.0, **given).rule.carrier.clip == 2.0
    for target, said in ((model, {"batch_size": B}), (cell, given)):
        with pytest.raises(braintrace.UsageError, match=r"Own has no such option.*\n.*clap"):
            braintrace.compile(target, OwnRule, x, clap=1.0, **said)
