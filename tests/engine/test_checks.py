"""`braintrace.checks`: its references against the zoo's, its report, and its assertions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from braintrace.checks import (
    GradientReport,
    assert_gradients_exact,
    assert_gradients_match,
    assert_not_dead,
    bptt_gradient,
    check_gradients,
    compare_gradients,
    d_rtrl_oracle,
)
from zoo import CASES, bptt, loss

from ._door import T, assert_same, data, distances, learner

NAMES = [
    "gru_reset_before",
    "alif",
    "two_recurrent_layers",
    "counter",
    "lru",
    "exponential_synapse_recurrent",
]


@pytest.mark.parametrize("name", NAMES)
def test_references_are_those_of_the_zoo(name):
    case, given = CASES[name], data(name)
    assert_same(
        bptt_gradient(case.cell, *given, loss_fn=loss, reduction="sum")[0], bptt(case.cell, *given)
    )
    oracle, losses = d_rtrl_oracle(case.cell, *given, loss_fn=loss, reduction="sum")
    assert_same(oracle, bptt(case.oracle, *given))
    assert losses.shape == (T, 2)


@pytest.mark.parametrize("name", ["gru_reset_before", "alif"])
def test_references_mask_and_reset_as_the_learner_does(name):
    params, carry, xs, ys = data(name)
    mask = jnp.array([[1, 0], [1, 1], [0, 1], [0.5, 2], [1, 1]])
    reset = jnp.zeros((T, 2), bool).at[2, 0].set(True).at[3, 1].set(True)
    this = learner(name)
    given = {"loss_fn": loss, "mask": mask, "reset": reset}
    oracle, losses = d_rtrl_oracle(CASES[name].cell, params, carry, xs, ys, **given)
    online, _, info = this.etrace_grad(params, this.init(params, carry), xs, ys, **given)
    assert_same(online, oracle)
    np.testing.assert_allclose(info.losses, losses)
    exact = bptt_gradient(CASES[name].cell, params, carry, xs, ys, **given)[0]
    assert distances(online, exact)["['o']"] < 1e-10
    assert any(d > 1e-3 for d in distances(online, exact).values())


def report_of(name, **options):
    params, carry, xs, ys = data(name)
    this = learner(name)
    return check_gradients(this, params, this.init(params, carry), xs, ys, loss_fn=loss, **options)


def test_report():
    report = report_of("gru_reset_before")
    assert isinstance(report, GradientReport)
    assert report.ok
    assert report.dead == ()
    assert report["['o']"].relative_error < 1e-10
    assert report["['o']"].cosine == pytest.approx(1)
    row = report["['Wz']"]
    assert row.certificate == "approximate"
    assert row.relative_error > 1e-3 and -1 <= row.cosine < 1 - 1e-6
    assert row.dropped == 2
    text = str(report)
    assert "every certificate holds" in text
    assert len(text.splitlines()) == 2 + len(report.rows)
    assert all(r.path in text for r in report.rows)
    with pytest.raises(KeyError, match="no parameter"):
        report["nothing"]


def test_the_method_is_the_function():
    params, carry, xs, ys = data("alif")
    this = learner("alif")
    by_method = this.check_gradients(params, this.init(params, carry), xs, ys, loss_fn=loss)
    assert str(by_method) == str(report_of("alif"))


def test_a_multi_step_window_over_everything_says_nothing_about_the_rule():
    single = report_of("gru_reset_before")
    whole = report_of("gru_reset_before", multi_step=True, window=None)
    assert all(r.relative_error < 1e-10 for r in whole.rows)
    by_two = report_of("gru_reset_before", multi_step=True, window=2, mask=jnp.ones((T, 2)))
    assert by_two.ok
    assert by_two["['Wz']"].relative_error > 1e-6
    assert by_two["['Wz']"].relative_error != pytest.approx(single["['Wz']"].relative_error)
    with pytest.raises(ValueError, match="multi_step does not go with reset"):
        report_of("gru_reset_before", multi_step=True, reset=jnp.zeros((T, 2), bool))


def test_a_wrong_gradient_of_an_exact_parameter_is_named():
    case, given = CASES["minimal_gated"], data("minimal_gated")
    right = bptt(case.cell, *given)
    certificates = {r.path: r.exactness for r in learner("minimal_gated").graph.parameters}
    wrong = dict(right, u=1.01 * right["u"], bf=0 * right["bf"])
    report = compare_gradients(wrong, right, certificates)
    assert not report.ok
    assert report.dead == ("['bf']",)
    text = str(report)
    assert "NOT AS CERTIFIED" in text and "WRONG" in text and "DEAD" in text
    poisoned = compare_gradients(dict(right, u=right["u"] * jnp.nan), right, certificates)
    assert not poisoned.ok
    assert "NOT FINITE" in str(poisoned)
    assert compare_gradients(right, right, certificates).ok


def test_both_zero_is_equal_and_one_zero_is_not():
    certificate = {"value": "approximate"}
    zero, one = jnp.zeros(3), jnp.ones(3)
    (row,) = compare_gradients(zero, zero, certificate).rows
    assert (row.cosine, row.relative_error) == (1, 0)
    (row,) = compare_gradients(zero, one, certificate).rows
    assert (row.cosine, row.relative_error) == (0, 1)
    (row,) = compare_gradients(one, zero, certificate).rows
    assert (row.cosine, row.relative_error) == (0, np.inf)


def test_compare_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="different structures"):
        compare_gradients({"a": jnp.ones(3)}, {"b": jnp.ones(3)}, {})
    with pytest.raises(ValueError, match=r"No certificate for \['a'\]"):
        compare_gradients({"a": jnp.ones(3)}, {"a": jnp.ones(3)}, {})


def given_of(name):
    params, carry, xs, ys = data(name)
    this = learner(name)
    return this, params, this.init(params, carry), xs, ys


def test_assert_gradients_exact():
    report = assert_gradients_exact(*given_of("minimal_gated"), loss_fn=loss, window=3)
    assert report.ok
    with pytest.raises(AssertionError, match=r"\['W'\] is approximate, not exact"):
        assert_gradients_exact(*given_of("alif"), loss_fn=loss)
    assert_gradients_exact(*given_of("alif"), loss_fn=loss, paths=["['o']"])


def test_assert_gradients_exact_catches_a_wrong_learner():
    """A learner whose rule is 1 % off, and one whose gradients are zero."""

    @dataclasses.dataclass
    class Off:
        learner: object
        factor: float

        def __getattr__(self, name):
            return getattr(self.learner, name)

        def etrace_grad(self, *given, **options):
            gradients, *rest = self.learner.etrace_grad(*given, **options)
            return jax.tree.map(lambda g: self.factor * g, gradients), *rest

    this, *given = given_of("minimal_gated")
    with pytest.raises(AssertionError, match=r"certified exact and differs from BPTT by 1\.0e-02"):
        assert_gradients_exact(Off(this, 1.01), *given, loss_fn=loss)
    with pytest.raises(AssertionError, match="differs"):
        assert_gradients_exact(Off(this, 0.0), *given, loss_fn=loss)
    silent = dict(given[0], o=jnp.zeros_like(given[0]["o"]))
    with pytest.raises(AssertionError, match="gradient of zero"):
        assert_gradients_exact(this, silent, *given[1:], loss_fn=loss)


def test_assert_gradients_match():
    this, params, state, xs, ys = given_of("alif")
    oracle = d_rtrl_oracle(this.function, params, state.carry, xs, ys, loss_fn=loss)[0]
    assert_gradients_match(this, params, state, xs, ys, loss_fn=loss, reference=oracle, rtol=1e-10)
    with pytest.raises(AssertionError, match=r"\['W'\] differs by"):
        assert_gradients_match(this, params, state, xs, ys, loss_fn=loss, rtol=1e-6)
    assert_gradients_match(this, params, state, xs, ys, loss_fn=loss, rtol=10.0)


def test_assert_not_dead():
    assert_not_dead({"a": jnp.ones(3), "b": 1e-9 * jnp.ones(2), "c": None})
    for bad in (jnp.zeros(3), jnp.full(3, jnp.nan), jnp.array([1.0, jnp.inf])):
        with pytest.raises(AssertionError, match=r"\['b'\]"):
            assert_not_dead({"a": jnp.ones(3), "b": bad})
    with pytest.raises(AssertionError, match="1e-09"):
        assert_not_dead({"b": jnp.array([1e-9])}, floor=1e-6)
