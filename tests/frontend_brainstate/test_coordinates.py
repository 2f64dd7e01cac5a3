"""Axes of learning rules, `ETraceConfig`: what they compute and name, and which cannot be."""

import brainstate
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from brainstate import nn

import braintrace
from braintrace import ETraceConfig

from .leaky import IN, Leaky, N, gradient, sequences
from .models import assert_close

LEAK = 0.7
FACTORED = "io_factorized"


def by_hand(model, xs, ys, recursion):
    """Gradients of w and r: `recursion(f, x)` moves a trace and gives what the signal dL/dh_t is
    multiplied with.
    """
    h, total, moves = jnp.zeros(N), [0.0, 0.0], [recursion(), recursion()]
    for x, y in zip(xs, ys, strict=True):
        new = jnp.tanh(0.8 * h + x @ model.w.value + h @ model.r.value)
        signal = 2 * (new @ model.o.value - y) @ model.o.value.T
        total = [
            g + move(1 - new**2, v) * signal
            for g, move, v in zip(total, moves, (x, h), strict=True)
        ]
        h = new
    return dict(zip((("w",), ("r",)), total, strict=True))


def leaking(leak):
    def start():
        trace = [0.0]

        def move(f, x):
            trace[0] = leak * trace[0] + jnp.outer(x, f)
            return trace[0]

        return move

    return start


def leaking_factors(of_x, of_f):
    def start():
        kept = [0.0, 0.0, 0.0]

        def move(f, x):
            kept[:] = of_x * kept[0] + x, of_f * kept[1] + (1 - of_f) * f, of_f * kept[2] + 1 - of_f
            return jnp.outer(kept[0], kept[1] / kept[2])

        return move

    return start


@pytest.mark.parametrize("window", [1, 3])
@pytest.mark.parametrize(
    ("config", "recursion"),
    [
        (ETraceConfig(temporal_recursion="scalar_leak", decay=LEAK), leaking(LEAK)),
        (ETraceConfig(temporal_recursion="none"), leaking(0.0)),
        (
            ETraceConfig(
                trace_factorization="io_factorized",
                temporal_recursion=("scalar_leak", "scalar_leak"),
                decay=(0.6, 0.5),
            ),
            leaking_factors(0.6, 0.5),
        ),
        (
            ETraceConfig(FACTORED, ("scalar_leak", "none"), decay=(0.6, 0.0)),
            leaking_factors(0.6, 0.0),
        ),
    ],
    ids=["leak", "none", "two leaks", "input leak"],
)
def test_recursions_without_a_jacobian(config, recursion, window):
    model, (xs, ys) = Leaky(), sequences()
    learner = braintrace.compile(model, config, xs[0])
    found = gradient(learner, xs, ys, window=window)
    expected = by_hand(model, xs, ys, recursion)
    assert_close({k: found[k] for k in expected}, expected)
    other = by_hand(model, xs, ys, leaking(0.4))  # control: another leak is seen
    assert not np.allclose(found["w",], other["w",], rtol=1e-3)
    assert learner.config == config
    assert (
        learner.report.counts["exact"] == 1
    )  # the readout; a leak in the dynamics' place is not called exact


class Alone(Leaky):
    """Without recurrent weights."""

    def update(self, x):
        self.h.value = self.step(self.h.value, x @ self.w.value)
        return self.h.value @ self.o.value


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("rflo", {"random_feedback_key": 0}, "a feedback weight stands for the readout's"),
        ("eprop", {"kappa_filter_decay": 0.5}, "the readout is filtered in time"),
        ("osttp", {"feedback_key": 0}, "target"),
        (ETraceConfig(temporal_recursion="scalar_leak", decay=LEAK), {}, "a constant leak"),
    ],
)
def test_what_replaces_the_gradient_is_not_called_exact(name, options, reason):
    learner = braintrace.compile(Alone(), name, jnp.zeros(IN), **options)
    [row] = [r for r in learner.graph.parameters if r.path == "w"]
    assert str(row.exactness) == "approximate" and reason in row.reason
    assert str(braintrace.compile(Alone(), "d_rtrl", jnp.zeros(IN)).graph.exactness("w")) == "exact"


def test_axis_zero_is_a_batch_only_where_inputs_share_it():
    x = jnp.zeros((N, IN))
    one = braintrace.compile(Leaky(), "ostl_recurrent", x[0])
    assert one.graph.batch_size is None
    assert braintrace.compile(Leaky(), "ostl_recurrent", x, batch_size=N).graph.batch_size == N
    model = Leaky()
    nn.init_all_states(model, batch_size=N)
    assert braintrace.D_RTRL(model).compile_graph(x).graph.batch_size == N


def test_a_leak_is_not_called_exact_without_recurrence():
    exact = braintrace.compile(Alone(), ETraceConfig(), jnp.zeros(IN))
    leaky = braintrace.compile(
        Alone(), ETraceConfig(temporal_recursion="scalar_leak", decay=LEAK), jnp.zeros(IN)
    )
    assert str(exact.graph.exactness("w")) == "exact"
    assert str(leaky.graph.exactness("w")) == "approximate"


@pytest.mark.parametrize(
    ("config", "name", "options"),
    [
        (ETraceConfig(), "d_rtrl", {}),
        (ETraceConfig(recurrence_scope="coupled"), "ostl_recurrent", {}),
        (ETraceConfig(recurrence_scope="sparse_n", sparse_n=2), "snap", {"n": 2}),
        (
            ETraceConfig(trace_factorization="random_projection", recurrence_scope="coupled"),
            "uoro",
            {},
        ),
        (
            ETraceConfig(trace_factorization="io_factorized", decay=0.9),
            "pp_prop",
            {"decay_or_rank": 0.9},
        ),
        (ETraceConfig(trace_filter="kappa", kappa=0.8), "eprop", {"kappa_filter_decay": 0.8}),
        (ETraceConfig(learning_signal="random_feedback"), "rflo", {"random_feedback_key": 3}),
    ],
    ids=lambda v: v.describe() if isinstance(v, ETraceConfig) else "",
)
def test_coordinates_select_the_algorithm(config, name, options):
    model, (xs, ys) = Leaky(), sequences()
    key = {"random_feedback_key": 3} if config.learning_signal == "random_feedback" else {}
    found = gradient(braintrace.compile(model, config, xs[0], **key), xs, ys, window=3)
    expected = gradient(braintrace.compile(model, name, xs[0], **options), xs, ys, window=3)
    assert_close(found, expected)
    assert (name == "d_rtrl") == np.allclose(
        found["w",], gradient(braintrace.compile(model, "d_rtrl", xs[0]), xs, ys)["w",]
    )


def test_config_of_an_algorithm():
    model = Leaky()
    of = lambda name, **options: braintrace.compile(model, name, jnp.zeros(IN), **options).config
    assert of("eprop", kappa_filter_decay=0.8) == ETraceConfig(trace_filter="kappa", kappa=0.8)
    assert of("ostl_recurrent").include_recurrent_mixing
    assert of("pp_prop", decay_or_rank=19).decay == (0.9, 0.9)
    assert of("ottt", leak=0.5).temporal_recursion == ("scalar_leak", "none")
    assert of("osttp", feedback_key=0) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"trace_factorization": "full"},
            ("Unknown trace_factorization", "'full'", "'io_factorized'"),
        ),
        ({"kappa": 0.5}, ("kappa has no effect", "trace_filter='kappa'")),
        ({"trace_filter": "kappa"}, ("needs kappa",)),
        ({"recurrence_scope": "sparse_n"}, ("needs sparse_n",)),
        ({"recurrence_scope": "sparse_n", "sparse_n": 0}, ("Invalid sparse_n", "at least 1")),
        ({"trace_factorization": "io_factorized"}, ("needs its decay",)),
        ({"temporal_recursion": "scalar_leak"}, ("needs its size",)),
        ({"temporal_recursion": "scalar_leak", "decay": 1.0}, ("Invalid decay", "[0, 1)")),
        ({"decay": 0.5}, ("decay has no effect",)),
        ({"temporal_recursion": "none", "decay": 0.5}, ("no earlier trace",)),
        ({"temporal_recursion": "none", "recurrence_scope": "coupled"}, ("this rule has none",)),
        (
            {
                "trace_factorization": "io_factorized",
                "decay": 0.9,
                "trace_filter": "kappa",
                "kappa": 0.5,
            },
            ("two factors cannot hold",),
        ),
        ({"trace_factorization": "random_projection"}, ("unbiased for the whole Jacobian",)),
        (
            {"temporal_recursion": ("scalar_leak", "none"), "decay": (0.5, 0.0)},
            ("Only a factorised trace has two sides",),
        ),
    ],
)
def test_illegal_coordinates(fields, words):
    with pytest.raises(braintrace.UsageError) as error:
        ETraceConfig(**fields)
    assert all(word in str(error.value) for word in words), error.value
    assert isinstance(error.value, ValueError)


@pytest.mark.parametrize(
    "fields",
    [
        {"learning_signal": "bootstrapped"},  # beside traces
        {"trace_factorization": "io_factorized", "decay": 0.9, "recurrence_scope": "coupled"},
    ],
)
def test_coordinates_without_a_rule_say_what_is_near(fields):
    with pytest.raises(braintrace.NotSupportedError, match=r"(?s)[Tt]race.*do:"):
        braintrace.compile(Leaky(), ETraceConfig(**fields), jnp.zeros(IN))


@pytest.mark.parametrize("kappa", [None, 0.7])
def test_a_modulator_is_a_coordinate(kappa):
    """With a filter it is that of what the modulator meets: reward-modulated e-prop."""
    model, (xs, ys) = Leaky(), sequences()
    filtered = {} if kappa is None else {"trace_filter": "kappa", "kappa": kappa}
    config = ETraceConfig(learning_signal="modulatory", **filtered)
    modulator = jnp.sin(jnp.arange(float(len(xs)))) + 0.2

    def found(algorithm, **options):
        learner = braintrace.compile(model, algorithm, xs[0], **options)
        return learner, gradient(learner, xs, ys, window=3, modulator=modulator)

    learner, by_config = found(config)
    assert_close(by_config, found("three_factor", kappa_filter_decay=kappa or 0.0)[1])
    loss_own = gradient(braintrace.compile(model, "d_rtrl", xs[0]), xs, ys)
    assert not np.allclose(by_config["w",], loss_own["w",])  # control
    assert learner.config == config
    with pytest.raises(braintrace.UsageError, match="no multi-step form"):
        braintrace.compile(model, config, xs[0], vjp_method="multi-step")


def test_an_estimate_of_the_later_loss_is_a_coordinate():
    model, (xs, ys) = Leaky(), sequences()
    config = ETraceConfig(learning_signal="bootstrapped", temporal_recursion="none")

    def found(algorithm):
        learner = braintrace.compile(model, algorithm, xs[0])
        given = {"loss_fn": lambda out, y: ((out - y) ** 2).sum(-1).mean(), "lr": 0.1}
        braintrace.train_synthetic_gradient(learner, xs, ys, epochs=3, **given)
        return learner, gradient(learner, xs, ys, window=3)

    learner, by_config = found(config)
    assert_close(by_config, found("dni")[1])
    untrained = gradient(braintrace.compile(model, config, xs[0]), xs, ys)
    assert not np.allclose(by_config["w",], untrained["w",])  # control
    assert learner.config == config


def test_updates_in_windows_are_a_coordinate():
    (xs, ys), found = sequences(), {}
    config = ETraceConfig(update_schedule="window", window_size=2)
    cases = {"config": (config, None), "mode": ("d_rtrl", 2), "steps": ("d_rtrl", "O")}
    for name, (algorithm, mode) in cases.items():
        brainstate.random.seed(0)
        model = Leaky()
        learner = braintrace.compile(model, algorithm, xs[0])
        given = {"loss_fn": lambda out, y: ((out - y) ** 2).mean(), "optimizer": optax.sgd(0.1)}
        losses = learner.etrace_fit(xs, ys, mode=mode, **given)
        assert losses.shape == (len(xs),)
        found[name] = {k: v.value for k, v in model.states(brainstate.ParamState).items()}
    assert_close(found["config"], found["mode"])
    assert not np.allclose(found["steps"]["w",], found["mode"]["w",])  # control
    assert braintrace.compile(Leaky(), config, xs[0]).config == config


def test_rules_beyond_the_axes_have_no_coordinates():
    """They hold more than a layer, or keep a unit's own neighbourhood."""
    for name in ("rtrl", "snap", "random_rtrl", "sk_rtrl"):
        options = {"n": 1} if name == "snap" else {}
        assert braintrace.compile(Leaky(), name, jnp.zeros(IN), **options).config is None


def test_coordinates_have_one_form():
    assert ETraceConfig(temporal_recursion="scalar_leak", decay=0.0) == ETraceConfig(
        temporal_recursion="none"
    )
    assert ETraceConfig(trace_filter="kappa", kappa=0.0) == ETraceConfig()
    assert ETraceConfig(recurrence_scope="sparse_n", sparse_n=1) == ETraceConfig(
        recurrence_scope="coupled"
    )
    config = ETraceConfig(trace_factorization="io_factorized", decay=(0.9, 0.0))
    assert (config.recursion_x, config.recursion_f, config.decay_x, config.decay_f) == (
        "scalar_leak",
        "none",
        0.9,
        0.0,
    )
    assert config.replace() == config and ETraceConfig().describe() == "default"
