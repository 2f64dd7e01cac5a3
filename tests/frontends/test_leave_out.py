"""What is left out on purpose: frozen parameters, and parameters without a trace.

The oracles evaluate a marked step twice, as the zoo does.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from braintrace import CompilationError, UsageError, checks
from zoo._case import keep

from ._leaving_out import PARAMS, WINDOWS, ZERO, compiled, gradient, step, stepwise, weights
from .cells import IN, B, N, T, assert_close, data, sample_loss, sequence_gradient

sg = lax.stop_gradient


def oracle(names):
    """Two evaluations; in the one that gives the next carry, parameters in `names` are stopped."""

    def both(p, h, x):
        kept = {k: sg(v) if k in names else v for k, v in p.items()}
        new, _ = step(kept, h, x, old=sg, mix=sg)
        _, out = step(p, h, x, old=sg, mix=keep)
        return new, out

    return both


# exclude
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("names", [["u"], ["a"], ["w", "a"], ["w", "u", "a"]], ids="+".join)
def test_excluded_parameters_have_an_instantaneous_gradient(names):
    xs, ys = data()
    learner = compiled(exclude=names)
    expected, plain = (sequence_gradient(oracle(n), PARAMS, ZERO, xs, ys) for n in (names, []))
    for window in WINDOWS:
        assert_close(gradient(learner, window), expected)
    assert_close(stepwise(learner), expected)
    rows = {row.path: row for row in learner.graph.parameters}
    for name in names:
        assert rows[f"['{name}']"].exactness == "instantaneous"
        assert not rows[f"['{name}']"].sites
        assert jnp.abs(expected[name] - plain[name]).max() > 1e-3, (
            "control: with a trace it is another gradient"
        )
    others = [k for k in PARAMS if k not in names]
    assert_close({k: expected[k] for k in others}, {k: plain[k] for k in others})
    assert checks.check_gradients(
        learner, PARAMS, learner.init(PARAMS, ZERO), xs, ys, loss_fn=sample_loss
    ).ok


@pytest.mark.parametrize(
    "options", [{"exclude": ["u"]}, {"trainable": ["w", "u", "out"]}], ids=["exclude", "trainable"]
)
def test_with_masks_and_resets(options):
    """Samples that are reset, and losses that do not count, against the oracle of a step that
    starts from the marks.
    """
    xs, ys = data()
    marks = jnp.zeros((T, B), bool).at[3, 1].set(True).at[5].set(True)
    mask = jnp.arange(T)[:, None] < jnp.array([7, 4, 5, 6])
    plain = oracle(options.get("exclude", []))
    first = ZERO + 0.3

    def total(p):
        with_reset = lambda h, at: plain(p, jnp.where(at[1][:, None], first, h), at[0])
        outs = lax.scan(with_reset, first, (xs, marks))[1]
        return jnp.sum(jax.vmap(sample_loss)(outs, ys) * mask)

    expected = jax.grad(total)(PARAMS)
    learner = compiled(carry=first, **options)
    for window in WINDOWS:
        found, *_ = learner.etrace_grad(
            PARAMS,
            learner.init(PARAMS, first),
            xs,
            ys,
            loss_fn=sample_loss,
            window=window,
            reduction="sum",
            reset=marks,
            mask=mask,
        )
        trained = [k for k, v in found.items() if v is not None]
        assert len(trained) == (5 if "exclude" in options else 3)
        assert_close({k: found[k] for k in trained}, {k: expected[k] for k in trained})


def test_what_is_excluded_costs_no_trace():
    size = lambda learner: sum(v.size for v in jax.tree.leaves(learner.init(PARAMS, ZERO).traces))
    assert size(compiled()) - size(compiled(exclude="u")) == B * N * N
    assert size(compiled(exclude=["u", "w", "a"])) == 0
    assert size(compiled()) - size(compiled(trainable=["w", "a", "out", "b"])) == B * N * N


@pytest.mark.parametrize("algorithm", ["pp_prop", "eprop", "ostl_recurrent", "rflo", "ottt"])
def test_windows_agree_with_steps_under_other_rules(algorithm):
    """Instantaneous by definition: with no later loss than the first the gradient is that of the
    first step, trace or not.
    """
    options = {
        "pp_prop": {"decay_or_rank": 0.9},
        "ottt": {"leak": 0.9},
        "rflo": {"random_feedback_key": 0},
    }.get(algorithm, {})
    learner, plain = (
        compiled(algorithm=algorithm, exclude="w", **options),
        compiled(algorithm=algorithm, **options),
    )
    found = [gradient(learner, window) for window in WINDOWS]
    assert_close(found[0], found[1])
    assert_close(found[0], found[2])
    assert jnp.abs(found[0]["w"] - gradient(plain, 1)["w"]).max() > 1e-3
    for name in ("u", "a", "out", "b"):
        np.testing.assert_allclose(found[0][name], gradient(plain, 1)[name], rtol=1e-10, atol=1e-12)
    xs, ys = data()
    of_step = jnp.zeros_like(
        PARAMS["w"]
    )  # the sum of the gradients of each step's loss alone, from a state without a trace
    state = plain.init(PARAMS, ZERO)
    for t in range(T):
        part = slice(t, t + 1)
        state = plain.init(PARAMS, state.carry)
        one, state, _ = plain.etrace_grad(
            PARAMS, state, xs[part], ys[part], loss_fn=sample_loss, reduction="sum"
        )
        of_step += one["w"]
    if algorithm in (
        "pp_prop",
        "ostl_recurrent",
    ):  # the others filter or project what comes from earlier steps
        np.testing.assert_allclose(found[0]["w"], of_step, rtol=1e-9, atol=1e-12)


def test_a_weight_made_of_both_kinds_is_refused():
    cell = lambda p, h, x: (0.9 * h + x @ (p["w"] * p["g"]), h)
    params = weights(w=(IN, N), g=(N,))
    with pytest.raises(CompilationError, match=r"got:      \[\"\['g'\]\", \"\['w'\]\"\]"):
        compiled(cell, params, exclude="g")
    assert str(compiled(cell, params, trainable="w").report).count("frozen")
    assert compiled(cell, params, exclude=["w", "g"]).graph.exactness("['g']") == "instantaneous"


# trainable
# --------------------------------------------------------------------------------------------------


def test_frozen_parameters_have_no_gradient():
    xs, ys = data()
    learner = compiled(trainable=["w", "out"])
    expected = sequence_gradient(oracle([]), PARAMS, ZERO, xs, ys)
    for window in WINDOWS:
        found = gradient(learner, window)
        assert found["u"] is None and found["a"] is None and found["b"] is None
        assert_close(found["w"], expected["w"])
        assert_close(found["out"], expected["out"])
    zero = stepwise(learner)
    assert not zero["u"].any() and not zero["b"].any()
    assert_close(zero["w"], expected["w"])
    rows = {row.path: str(row.exactness) for row in learner.graph.parameters}
    assert rows == {
        "['w']": "approximate",
        "['u']": "frozen",
        "['a']": "frozen",
        "['out']": "exact",
        "['b']": "frozen",
    }
    assert "3 frozen" in str(learner.report)
    report = learner.check_gradients(
        PARAMS, learner.init(PARAMS, ZERO), xs, ys, loss_fn=sample_loss
    )
    assert [row.path for row in report.rows] == ["['out']", "['w']"] and report.ok


@pytest.mark.parametrize("mode", ["A", "O"])
def test_an_optimizer_leaves_frozen_parameters_alone(mode):
    optax = pytest.importorskip("optax")
    xs, ys = data()
    learner = compiled(trainable=["w", "out"])
    optimizer = optax.adamw(1e-2, weight_decay=0.1)
    trained = learner.trained(PARAMS)
    assert trained["u"] is None
    params, *_ = learner.etrace_fit(
        PARAMS,
        optimizer.init(trained),
        learner.init(PARAMS, ZERO),
        xs,
        ys,
        optimizer=optimizer,
        mode=mode,
        loss_fn=sample_loss,
    )
    assert all((params[k] == PARAMS[k]).all() for k in ("u", "a", "b"))
    assert all((params[k] != PARAMS[k]).all() for k in ("w", "out"))


# Patterns
# --------------------------------------------------------------------------------------------------

NESTED = {
    "cell": {"w": PARAMS["w"], "u": PARAMS["u"]},
    "layers": [PARAMS["out"]],
    "a": PARAMS["a"],
    "b": PARAMS["b"],
}


def nested(p, h, x):
    return step({**p["cell"], "a": p["a"], "b": p["b"], "out": p["layers"][0]}, h, x)


@pytest.mark.parametrize(
    ("patterns", "chosen"),
    [
        ("cell", {"['cell']['w']", "['cell']['u']"}),
        ("cell.*", {"['cell']['w']", "['cell']['u']"}),
        ("*.u", {"['cell']['u']"}),
        ("layers.0", {"['layers'][0]"}),
        ("['layers'][0]", {"['layers'][0]"}),
        ("?", {"['a']", "['b']"}),
        (["a", "*w"], {"['a']", "['cell']['w']"}),
        (lambda path, leaf: leaf.ndim == 1, {"['a']", "['b']"}),
        ((lambda path, leaf: path == "cell.u", "b"), {"['cell']['u']", "['b']"}),
    ],
)
def test_patterns(patterns, chosen):
    learner = compiled(nested, NESTED, trainable=patterns)
    trained = {row.path for row in learner.graph.parameters if row.exactness != "frozen"}
    assert trained == chosen


@pytest.mark.parametrize("option", ["trainable", "exclude"])
def test_a_pattern_that_matches_nothing(option):
    paths = r"some of \['a', 'b', 'cell.u', 'cell.w', 'layers.0'\]"
    for wrong in ("kernel", lambda path, leaf: False, ["a", "cell.v"]):
        with pytest.raises(
            UsageError, match=rf"{option} matches no parameter\.\n.*\n  expected: {paths}"
        ):
            compiled(nested, NESTED, **{option: wrong})
    with pytest.raises(UsageError, match=f"Invalid {option}"):
        compiled(nested, NESTED, **{option: [3]})
