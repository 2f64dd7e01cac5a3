"""Options are checked when they are given; what has no meaning is refused, word for word. And the
trace helpers.
"""

import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import braintrace
from braintrace import FixedRandomFeedback, KappaFilter, PresynapticTrace
from braintrace.checks import Layer, LayeredCell
from braintrace.rules import ALGORITHMS
from zoo import loss

from ._rules import drawn
from .cells import EXAMPLES, B, N, O, T, data, dense, fire, lif, lif_move, stack


def compiled(name, algorithm, **options):
    params, carry, xs, _ = data(name)
    return braintrace.compile(
        EXAMPLES[name].cell, algorithm, xs[0], params=params, carry=carry, **options
    )


DECAY = "a decay in [0, 1), or a whole number of at least 1"
CHOOSE = "pass 0.9, or the rank 19 that stands for it"

WRONG = [
    (
        "pp_prop",
        {"decay_or_rank": 1.0},
        f"Invalid decay_or_rank.\n  got:      1.0\n  expected: {DECAY}\n  do:       {CHOOSE}",
    ),
    (
        "pp_prop",
        {"decay_or_rank": -1},
        f"Invalid decay_or_rank.\n  got:      -1\n  expected: {DECAY}\n  do:       {CHOOSE}",
    ),
    (
        "pp_prop",
        {"decay_or_rank": (0.1, 0.2, 0.3)},
        "Invalid decay_or_rank.\n  got:      (0.1, 0.2, 0.3)\n  expected: one value, or a pair",
    ),
    (
        "eprop",
        {"kappa_filter_decay": 1.0},
        "Invalid kappa_filter_decay.\n  got:      1.0\n  expected: a number in [0, 1)",
    ),
    (
        "eprop",
        {"feedback": "random"},
        "feedback='random' needs to know how to draw B.\n  got:      no key and no matrices\n"
        "  expected: random_feedback_key\n"
        "  do:       pass random_feedback_key=0, say, or feedback_weights",
    ),
    (
        "eprop",
        {"feedback": "fixed"},
        "Unknown feedback.\n  got:      'fixed'\n  expected: 'symmetric' or 'random' or 'adaptive'",
    ),
    (
        "eprop",
        {"firing_rate": 0.1},
        "Invalid firing_rate.\n  got:      0.1\n  expected: (target, strength), or None",
    ),
    (
        "ottt",
        {},
        "OTTT needs the leak of the membrane.\n  got:      no leak\n"
        "  expected: a number in [0, 1], one for each "
        "group, or 'model'\n"
        "  do:       pass leak=0.5, say, or leak='model' to read it from the model",
    ),
    ("ottt", {"leak": 1.5}, "Invalid leak.\n  got:      1.5\n  expected: a number in [0, 1]"),
    ("ottt", {"leak": 0.5, "mode": "B"}, "Unknown mode.\n  got:      'B'\n  expected: 'A' or 'O'"),
    (
        "otpe",
        {},
        "OTPE needs the leak of the membranes.\n  got:      no leak\n"
        "  expected: a number in [0, 1)\n  do:       pass "
        "leak=0.9, say",
    ),
    ("otpe", {"leak": 1.0}, "Invalid leak.\n  got:      1.0\n  expected: a number in [0, 1)"),
    (
        "otpe",
        {"leak": 0.5, "mode": "approx", "trace_clip_abs": 1.0},
        "trace_clip_abs clips traces of weights, and F-OTPE has none.\n  got:      mode='approx'\n"
        "  do:       use mode='full', or leave trace_clip_abs out",
    ),
    (
        "osttp",
        {},
        "OSTTP needs its feedback matrices.\n  got:      no B_list and no feedback_key\n"
        "  expected: B_list, or feedback_key to draw them\n"
        "  do:       pass feedback_key=0, say",
    ),
    (
        "osttp",
        {"feedback_key": 0, "target_timing": "late"},
        "Unknown target_timing.\n  got:      'late'\n  expected: 'per-step' or 'sequence-end'",
    ),
    (
        "osttp",
        {"feedback_key": 0, "scope": "all"},
        "Unknown scope.\n  got:      'all'\n  expected: 'diagonal' or 'exact'",
    ),
    (
        "rflo",
        {},
        "RFLO needs to know how to draw B.\n  got:      no key and no matrices\n"
        "  expected: random_feedback_key\n"
        "  do:       pass random_feedback_key=0, say, or feedback_weights",
    ),
    (
        "d_rtrl",
        {"trace_dtype": int},
        "Invalid trace_dtype.\n  got:      <class 'int'>\n"
        "  expected: a floating-point dtype, a rules.StochasticRounding, or None\n"
        "  do:       pass jnp.float32, say",
    ),
]


@pytest.mark.parametrize(("algorithm", "options", "message"), WRONG)
def test_a_wrong_option(algorithm, options, message):
    with pytest.raises(braintrace.UsageError) as error:
        ALGORITHMS[algorithm](**options)
    assert str(error.value) == message


def without_readout():
    cell = LayeredCell((lif(),), lambda p, z: z)
    params, carry, xs, _ = data("recurrent_lif")
    params = {k: v for k, v in params.items() if k != "o"}
    options = {"feedback": "random", "random_feedback_key": 0}
    return braintrace.compile(cell, "eprop", xs[0], params=params, carry=carry[:1], **options)


def circle():
    """Two layers that feed each other."""

    def cell(p, c, x):
        new = 0.5 * c[0] + x @ p["W"] + c[1] @ p["U"], 0.5 * c[1] + c[0] @ p["V"]
        return new, c[1] @ p["o"]

    params = {
        "W": jnp.ones((3, N)),
        "U": jnp.ones((N, N)),
        "V": jnp.ones((N, N)),
        "o": jnp.ones((N, O)),
    }
    carry = (jnp.zeros((B, N)),) * 2
    return braintrace.compile(cell, "otpe", jnp.zeros((B, 3)), params=params, carry=carry, leak=0.5)


MODELS = [
    (
        lambda: compiled("leaky_tanh", "eprop", kappa_filter_decay="readout"),
        "The filter cannot be read from the model.\n  got:      0 different leaks of readouts\n"
        "  expected: leaky readouts of one leak\n  do:       give kappa_filter_decay as a number",
    ),
    (
        without_readout,
        "No readout that a feedback weight could replace was found.\n"
        "  expected: an output, or a leaky readout, fed by a product of the hidden activity with "
        "a weight\n"
        "  do:       read the activity out with a linear layer inside the model, or use "
        "feedback='symmetric'",
    ),
    (
        lambda: compiled("one_lif", "osttp", B_list=[np.zeros((3, 7))]),
        "A feedback matrix has a wrong shape.\n  got:      B_list[0] of shape (3, 7)\n  "
        f"expected: (3, {N})",
    ),
    (
        lambda: compiled("three_lif", "osttp", B_list=[np.zeros((3, N))]),
        "The number of feedback matrices does not fit the model.\n  got:      1 matrices in "
        "B_list\n"
        "  expected: 3: one for each hidden group\n  do:       look at the groups in the report",
    ),
    (
        lambda: compiled("one_lif", "osttp", B_list=[np.zeros((3, N))] * 2),
        "The number of feedback matrices does not fit the model.\n  got:      2 matrices in "
        "B_list\n"
        "  expected: 1: one for each hidden group\n  do:       look at the groups in the report",
    ),
    (
        lambda: compiled("one_lif", "rflo", feedback_weights=[np.zeros((O, N))]),
        f"A feedback matrix has a wrong shape.\n  got:      feedback_weights[0] of shape ({O}, "
        f"{N})\n  expected: ({N}, {O})",
    ),
    (
        lambda: compiled("gru", "otpe", leak=0.5, mode="approx"),
        "A layer's drive and its activity differ in shape.\n  got:      (2, 12) and (2, 4)\n  "
        "expected: one shape\n"
        "  do:       use EProp or D_RTRL",
    ),
    (
        circle,
        "OTPE is defined for layers that feed each other one way.\n  got:      layers that feed "
        "each other in a circle\n"
        "  do:       use OSTLRecurrent, EProp or D_RTRL",
    ),
]


@pytest.mark.parametrize(("make", "message"), MODELS)
def test_a_model_that_does_not_fit(make, message):
    with pytest.raises(braintrace.CompilationError) as error:
        make()
    assert str(error.value).split("\n  at:")[0] == message


def test_the_leak_of_a_model_that_has_no_constant_one():
    with pytest.raises(braintrace.CompilationError, match="not constant"):
        compiled("leaky_tanh", "ottt", leak="model")
    with pytest.raises(braintrace.CompilationError, match="2 state variables"):
        compiled("synapse", "ottt", leak="model")
    with pytest.raises(braintrace.CompilationError, match="Wrong number of leaks"):
        compiled("one_lif", "ottt", leak=(0.1, 0.2, 0.3))
    assert compiled("one_lif", "ottt", leak="model").rule.carrier.leaks == pytest.approx((0.8, 0.8))


@pytest.mark.parametrize(
    ("algorithm", "options", "name"),
    [
        ("eprop", {"feedback": "random", "random_feedback_key": 0}, "e-prop"),
        ("eprop", {"feedback": "adaptive", "random_feedback_key": 0}, "e-prop"),
        ("ottt", {"leak": 0.8}, "OTTT"),
        ("otpe", {"leak": 0.8}, "OTPE"),
        ("otpe", {"leak": 0.8, "mode": "approx"}, "F-OTPE"),
        ("osttp", {"feedback_key": 0}, "OSTTP"),
        ("rflo", {"random_feedback_key": 0}, "RFLO"),
    ],
)
def test_no_multi_step_window_where_it_would_mix_two_signals(algorithm, options, name):
    """Row M: BPTT inside a window follows one signal, the traces another."""
    params, carry, xs, _ = data("one_lif")
    learner = compiled("one_lif", algorithm, **options)
    with pytest.raises(braintrace.UsageError) as error:
        learner.update_window(params, learner.init(params, carry), xs, full=True)
    assert str(error.value).startswith(
        f"{name} has no multi-step form.\n  got:      full=True\n  do:       use vjp_method="
    )


def test_a_target_goes_to_an_algorithm_that_projects_targets():
    params, carry, xs, ys = data("one_lif")
    osttp, d_rtrl = compiled("one_lif", "osttp", feedback_key=0), compiled("one_lif", "d_rtrl")
    state, plain, given = osttp.init(params, carry), d_rtrl.init(params, carry), {"loss_fn": loss}
    first = "The target of the step does not fit the algorithm.\n"
    for call, message in (
        (
            lambda: osttp.update(params, state, xs[0]),
            first + f"  got:      none\n  expected: y_target of shape ({B}, {O})",
        ),
        (
            lambda: d_rtrl.update(params, plain, xs[0], y_target=ys[0]),
            first + f"  got:      an array of shape ({B}, {O})\n"
            "  expected: no y_target: this algorithm does not project targets",
        ),
        (
            lambda: osttp.etrace_grad(
                params, state, xs, ys, y_target=jnp.zeros((T, B, 5)), **given
            ),
            f"The target has a wrong shape.\n  got:      an array of shape ({B}, 5)\n  expected: "
            f"shape ({B}, {O})",
        ),
    ):
        with pytest.raises(braintrace.UsageError) as error:
            call()
        assert str(error.value) == message


def test_fixed_random_feedback():
    feedback = FixedRandomFeedback(3, 200, 1, init_scale=0.5)
    assert feedback.B.shape == (3, 200)
    assert np.std(feedback.B) == pytest.approx(0.5, rel=0.1)
    y = jnp.asarray(drawn(B, 3))
    np.testing.assert_allclose(feedback.project(y), y @ feedback.B, rtol=1e-12)
    assert not jax.grad(lambda y: feedback.project(y).sum())(y).any()
    np.testing.assert_array_equal(FixedRandomFeedback(3, 200, jax.random.key(1), 0.5).B, feedback.B)
    assert (FixedRandomFeedback(3, 200, 2, 0.5).B != feedback.B).any()
    for wrong in ((0, 3, 1), (2, 0, 1), (2, 3, 1, -1.0)):
        with pytest.raises(braintrace.UsageError):
            FixedRandomFeedback(*wrong)


def test_osttp_takes_the_helpers_feedback():
    helper = FixedRandomFeedback(O, N, 3)
    params, carry, xs, ys = data("one_lif")
    found = []
    for matrix in (helper, np.asarray(helper.B)):
        learner = compiled("one_lif", "osttp", B_list=[matrix])
        found.append(
            learner.etrace_grad(
                params, learner.init(params, carry), xs, ys, loss_fn=loss, y_target=ys
            )[0]
        )
    np.testing.assert_array_equal(found[0]["W"], found[1]["W"])


@pytest.mark.parametrize(
    ("helper", "step"),
    [
        (lambda v: KappaFilter(v, 0.75), lambda v, x: 0.25 * x + 0.75 * v),
        (lambda v: PresynapticTrace(v, 0.75), lambda v, x: 0.75 * v + x),
    ],
    ids=["KappaFilter", "PresynapticTrace"],
)
def test_filters(helper, step):
    first, xs = jnp.asarray(drawn(N)), jnp.asarray(drawn(4, N, seed=1))
    this, v = helper(first), first
    np.testing.assert_array_equal(this.value, first)
    for x in xs:
        v = step(v, x)
        np.testing.assert_allclose(this.update(x), v, rtol=1e-12)
        np.testing.assert_array_equal(this.value, this.state.value)
    this.reset_state()
    np.testing.assert_array_equal(this.value, first)


def test_filters_refuse_decays_out_of_range():
    for make in (
        lambda: KappaFilter(jnp.zeros(2), 1.0),
        lambda: PresynapticTrace(jnp.zeros(2), 1.5),
    ):
        with pytest.raises(braintrace.UsageError, match="expected: a number in"):
            make()
    PresynapticTrace(jnp.zeros(2), 1.0)


def test_an_algorithm_is_one_short_file_and_one_line_of_the_registry():
    for algorithm in set(ALGORITHMS.values()):
        assert len(Path(inspect.getfile(algorithm)).read_text().splitlines()) <= 150, algorithm
    assert ALGORITHMS["rflo"].name == "RFLO"


def rolled():
    """A layer whose drive moves to the neighbour on its way into the state."""
    move = lambda p, h, y: lif_move(p, h, jnp.roll(y, 1, axis=-1))
    cell = stack(Layer(dense(recurrent=False), move, fire))
    params, carry, xs, _ = data("one_lif")
    return braintrace.compile(
        cell, "otpe", xs[0], params=params, carry=carry, leak=0.8, mode="approx"
    )


def test_otpe_refuses_a_drive_that_moves():
    with pytest.raises(braintrace.CompilationError) as error:
        rolled()
    assert str(error.value).split("\n  at:")[0] == (
        "A layer's drive and its activity are not in one order.\n  got:      elements that move "
        "between the two\n"
        "  expected: the activity of each neuron where its drive is\n  do:       use EProp or "
        "D_RTRL"
    )
