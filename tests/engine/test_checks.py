"""`braintrace.checks`: its references against the zoo's, its report, and its assertions."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
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

from ._front_end import T, assert_same, data, distances, learner

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


def samples_last(p, h, x):
    """The samples along axis 1 of the state, beside an array of their number that they share."""
    new = jnp.tanh(0.5 * h["h"] + p["w"].T @ x.T + h["shared"][0])
    return {"h": new, "shared": 0.5 * h["shared"] + 1}, new.T @ p["o"]


def test_references_reset_what_the_learner_resets():
    B = N = 3  # as many neurons as samples: sizes cannot tell the axes apart
    random = np.random.default_rng(0)
    params = {"w": jnp.asarray(random.normal(size=(2, N))), "o": jnp.ones((N, 1))}
    carry = {"h": jnp.asarray(random.normal(size=(N, B))), "shared": jnp.ones(B)}
    xs, ys = jnp.asarray(random.normal(size=(T, B, 2))), jnp.zeros((T, B, 1))
    reset = jnp.zeros((T, B), bool).at[2, 0].set(True).at[3, 1].set(True)
    axes = {"h": 1, "shared": None}
    given = {"params": params, "carry": carry}
    this = braintrace.compile(samples_last, "d_rtrl", xs[0], batch_axes=(axes, 0), **given)
    options, state = {"loss_fn": loss, "reset": reset}, this.init(params, carry)
    assert check_gradients(this, params, state, xs, ys, **options).ok
    online = this.etrace_grad(params, state, xs, ys, window=3, **options)[0]
    sequence = samples_last, params, carry, xs, ys
    for reference in (bptt_gradient, d_rtrl_oracle):
        assert_same(online, reference(*sequence, batch_axes=axes, **options)[0])
        by_size = reference(*sequence, **options)[0]  # the control
        assert distances(online, by_size)["['w']"] > 1e-3


def test_resets_that_refer_to_nothing():
    params, carry = {"w": jnp.ones((2, 3))}, jnp.zeros(3)
    cell = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), h)
    this = braintrace.compile(cell, "d_rtrl", jnp.ones(2), params=params, carry=carry, batch=None)
    given = params, this.init(params, carry), jnp.ones((T, 2))
    options = {"loss_fn": lambda out: out.sum(), "reset": jnp.zeros((T, 4), bool)}
    with pytest.raises(ValueError, match="not known") as error:
        this.etrace_grad(*given, **options)
    assert "pass batch_size= or batch_axes= to compile" in str(error.value)
    sequence = cell, params, carry, jnp.ones((T, 2))
    with pytest.raises(ValueError, match="No array of the carry has the samples of reset"):
        bptt_gradient(*sequence, **options)
    with pytest.raises(ValueError, match="does not have the size of the batch"):
        bptt_gradient(*sequence, batch_axes=0, **options)


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
    assert len(text.splitlines()) == 3 + len(report.rows)
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


@dataclasses.dataclass
class Changed:
    """A learner whose gradients are changed, in one window if `only` says which."""

    learner: object
    change: object
    only: object = "all"

    def __getattr__(self, name):
        return getattr(self.learner, name)

    def etrace_grad(self, *given, window, **options):
        gradients, *rest = self.learner.etrace_grad(*given, window=window, **options)
        return self.change(gradients) if self.only in ("all", window) else gradients, *rest


def test_a_small_wrong_gradient_does_not_hide_behind_a_large_one():
    certificates = {f"['{name}']": "exact" for name in ("large", "small")}

    def report(factor, size, dtype=jnp.float32, **options):
        right = {"large": jnp.ones(4, dtype), "small": jnp.full(4, size, dtype)}
        wrong = dict(right, small=factor * right["small"])
        return compare_gradients(wrong, right, certificates, **options)

    assert not report(1.01, 1e-1).ok
    assert not report(2.0, 1e-3).ok
    assert not report(2.0, 1e-3, tolerance=1e-2).ok
    assert report(1.0005, 1e-3).ok
    below = report(2.0, 1e-5)  # what rounding may leave in float32, and not in float64
    assert below.ok and below["['small']"].relative_error == pytest.approx(1)
    assert "zero up to rounding" in str(below)
    assert not report(2.0, 1e-5, jnp.float64).ok and report(2.0, 1e-14, jnp.float64).ok
    assert report(0.0, 1e-14, jnp.float64).ok and not report(0.0, 1e-5, jnp.float64).ok
    assert report(2.0, 1e-3, dtypes=[jnp.bfloat16]).ok
    assert not report(2.0, 1e-1, dtypes=[jnp.bfloat16]).ok


def attention(p, h, x):
    """The bias of the keys moves all scores of a query alike: its gradient is zero."""
    e = x[:, :, None] * jnp.ones(4, x.dtype)
    keys = e @ p["k"] + p["bk"]
    scores = jax.nn.softmax(jnp.einsum("bid,bjd->bij", e @ p["q"], keys), -1)
    h = 0.9 * h + (scores @ e).sum((1, 2))[:, None] * jnp.ones(5, x.dtype)
    return h, h


def test_a_gradient_that_is_zero_in_mathematics_is_not_called_wrong():
    key = jax.random.split(jax.random.key(0), 3)
    draw = lambda k, *shape: jax.random.normal(k, shape, jnp.float32)
    p = {"q": draw(key[1], 4, 4), "k": draw(key[2], 4, 4), "bk": jnp.ones(4, jnp.float32)}
    h, xs = jnp.zeros((4, 5), jnp.float32), draw(key[0], 40, 4, 3)
    this = braintrace.compile(attention, "ostl_recurrent", xs[0], params=p, carry=h)
    given = this, p, this.init(p, h), xs
    options = {"loss_fn": lambda out: (out**2).mean(-1)}
    report = check_gradients(*given, **options, windows=(None, 1))
    assert report.ok and report["['bk']"].relative_error > 1e-2, report
    assert "zero up to rounding" in str(report) and "WRONG" not in str(report)
    with pytest.raises(AssertionError, match="gradient of zero, which says nothing"):
        assert_gradients_exact(*given, **options)
    assert_gradients_exact(*given, **options, paths=["['q']", "['k']"])
    bias = jnp.zeros(4, jnp.float32).at[0].set(8e-3)  # a thousandth of the whole gradient
    for off in (
        Changed(this, lambda g: dict(g, bk=bias)),
        Changed(this, lambda g: dict(g, k=1.01 * g["k"])),
    ):
        assert not check_gradients(off, *given[1:], **options).ok


@pytest.mark.parametrize("where", ["cell", "loss"])
def test_half_precision_under_float32_parameters(where):
    half = lambda v: v.astype(jnp.bfloat16)

    def cell(p, h, x):
        drive = half(x) @ half(p["w"]) if where == "cell" else x @ p["w"]
        h = 0.8 * h + jnp.tanh(drive.astype(jnp.float32))
        return h, h

    key = jax.random.split(jax.random.key(0), 2)
    p = {"w": jax.random.normal(key[0], (3, 4), jnp.float32)}
    h, xs = jnp.zeros((2, 4), jnp.float32), jax.random.normal(key[1], (20, 2, 3), jnp.float32)
    this = braintrace.compile(cell, "d_rtrl", xs[0], params=p, carry=h)
    loss_fn = lambda out: ((out if where == "cell" else half(out)) ** 2).sum(-1)
    given = p, this.init(p, h), xs
    report = check_gradients(this, *given, loss_fn=loss_fn)
    assert report.ok and report.tolerance == 5e-2, report
    off = Changed(this, lambda g: jax.tree.map(lambda v: 1.2 * v, g))
    assert not check_gradients(off, *given, loss_fn=loss_fn).ok
    whole = braintrace.compile(
        lambda p, h, x: (h := 0.8 * h + jnp.tanh(x @ p["w"]), h), "d_rtrl", xs[0], params=p, carry=h
    )
    single = check_gradients(whole, *given, loss_fn=lambda out: (out**2).sum(-1))
    assert single.ok and single.tolerance == 1e-3 and "as float32 takes part" in str(single)
    coarse = braintrace.compile(
        whole.function, "d_rtrl", xs[0], params=p, carry=h, trace_dtype=jnp.bfloat16
    )
    given = p, coarse.init(p, h), xs
    report = check_gradients(coarse, *given, loss_fn=lambda out: (out**2).sum(-1), window=1)
    assert report.ok and report.tolerance == 5e-2 and "as bfloat16 takes part" in str(report)
    [row] = report.rows
    assert row.certificate.value == "approximate" and 1e-4 < row.relative_error < 5e-2


def test_float16_has_a_tolerance_of_its_own():
    same = {"w": jnp.ones(2, jnp.float16)}
    report = compare_gradients(same, same, {"['w']": "exact"}, dtypes=[jnp.float32])
    assert report.tolerance == 2e-2 and report.precision == "float16"


def test_the_window_of_training_is_checked():
    """A learner whose default window is wrong, and one whose single steps are."""
    this, *given = given_of("minimal_gated")
    for wrong in (None, 1):
        off = Changed(this, lambda g: jax.tree.map(lambda v: 1.01 * v, g), only=wrong)
        plain = check_gradients(off, *given, loss_fn=loss)
        assert plain.ok == (wrong == 1)
        single = check_gradients(off, *given, loss_fn=loss, window=1)
        assert single.ok == (wrong is None)
        both = check_gradients(off, *given, loss_fn=loss, windows=(None, 1))
        assert not both.ok and len(both.disagreements) == len(both.rows)
        text = str(both)
        assert "WINDOWS DISAGREE" in text and "window 1 against window default" in text
    both = check_gradients(this, *given, loss_fn=loss, windows=(None, 1, 3))
    assert both.ok and both.disagreements == ()
    with pytest.raises(ValueError, match="window does not go with windows"):
        check_gradients(this, *given, loss_fn=loss, window=1, windows=(1, 3))
    with pytest.raises(ValueError, match="multi_step does not go with windows"):
        check_gradients(this, *given, loss_fn=loss, windows=(1, 3), multi_step=True)


def test_the_last_line_is_about_the_whole_gradient():
    certificates = {"['a']": "approximate", "['b']": "approximate"}
    right = {"a": jnp.array([3.0, 0.0]), "b": jnp.array([0.0, 4.0])}
    report = compare_gradients({"a": 3 * right["a"], "b": right["b"]}, right, certificates)
    assert report.norm_ratio == pytest.approx(np.sqrt(81 + 16) / 5)
    assert report.cosine == pytest.approx((27 + 16) / (5 * np.sqrt(81 + 16)))
    *_, warning, advice, total = str(report).splitlines()
    assert total == "total: cosine 0.8732, norm 1.970 of the reference's"
    assert warning == "WARNING: norms are off by more than 2x: ['a'] (3x)"
    for word in ("ostl_recurrent", "eprop", "multi-step"):
        assert word in advice
    report = compare_gradients(jax.tree.map(lambda v: 0.4 * v, right), right, certificates)
    assert "the whole gradient (0.4x), ['a'] (0.4x)" in str(report)
    near = compare_gradients(jax.tree.map(lambda v: 1.9 * v, right), right, certificates)
    assert "WARNING" not in str(near) and near.ok


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

    scaled = lambda factor: Changed(this, lambda g: jax.tree.map(lambda v: factor * v, g))
    this, *given = given_of("minimal_gated")
    with pytest.raises(AssertionError, match=r"certified exact and differs from BPTT by 1\.0e-02"):
        assert_gradients_exact(scaled(1.01), *given, loss_fn=loss)
    with pytest.raises(AssertionError, match="differs"):
        assert_gradients_exact(scaled(0.0), *given, loss_fn=loss)
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
