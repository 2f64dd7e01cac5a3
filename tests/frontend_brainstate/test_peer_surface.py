"""Views of the analysis, axes of learning rules, control flow, and other names that users of the
PyPI package braintrace know.
"""

import io

import brainstate
import brainunit as u
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from brainstate import nn

import braintrace
from braintrace import ControlFlowPolicy, DiagnosticKind, DiagnosticLevel, ETraceConfig

from .models import assert_close

T, IN, N, OUT = 6, 3, 4, 2
LEAK = 0.7
FACTORED = "io_factorized"


class Leaky(nn.Module):
    """A leaky tanh layer with recurrent weights and a readout."""

    def __init__(self, recurrent=True):
        super().__init__()
        self.w = brainstate.ParamState(brainstate.random.randn(IN, N))
        self.r = brainstate.ParamState(0.3 * brainstate.random.randn(N, N) * recurrent)
        self.o = brainstate.ParamState(brainstate.random.randn(N, OUT))

    def init_state(self, batch_size=None):
        self.h = brainstate.HiddenState(jnp.zeros((N,) if batch_size is None else (batch_size, N)))

    def step(self, h, z):
        return jnp.tanh(0.8 * h + z)

    def update(self, x):
        self.h.value = self.step(self.h.value, x @ self.w.value + self.h.value @ self.r.value)
        return self.h.value @ self.o.value


def sequences():
    return brainstate.random.randn(T, IN), brainstate.random.randn(T, OUT)


def gradient(learner, xs, ys, **options):
    learner.reset_state(model=True)
    step_fn = lambda x, y: jnp.sum((learner(x) - y) ** 2)
    return learner.etrace_grad(xs, ys, step_fn=step_fn, reduction="sum", **options)


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
        (ETraceConfig(recurrence_scope="sparse_n", sparse_n=2), "ostl_recurrent", {}),
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
        {"trace_factorization": "random_projection", "recurrence_scope": "coupled"},
        {"learning_signal": "modulatory"},
        {"learning_signal": "bootstrapped"},
        {"update_schedule": "window", "window_size": 4},
        {"trace_factorization": "io_factorized", "decay": 0.9, "recurrence_scope": "coupled"},
    ],
)
def test_coordinates_without_a_rule_say_what_is_near(fields):
    with pytest.raises(braintrace.NotSupportedError, match=r"(?s)No .* here .*do:"):
        braintrace.compile(Leaky(), ETraceConfig(**fields), jnp.zeros(IN))


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


# Views of the analysis
# -----------------------------------------------------------------------------------------------


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn1, self.rnn2, self.out = nn.GRUCell(IN, N), nn.LSTMCell(N, N), nn.Linear(N, OUT)

    def update(self, x):
        return self.out(self.rnn2(self.rnn1(x)))


def test_graph_and_report_of_a_stack():
    learner = braintrace.compile(Two(), "d_rtrl", jnp.zeros(IN))
    graph, report = learner.graph, learner.report
    assert [g.hidden_paths for g in graph.hidden_groups] == [
        (("rnn1", "h"),),
        (("rnn2", "h"), ("rnn2", "c")),
    ]
    assert [(g.index, g.num_state, g.varshape) for g in graph.hidden_groups] == [
        (0, 1, (N,)),
        (1, 2, (N,)),
    ]
    assert graph.hid_path_to_group["rnn2", "c"] is graph.hidden_groups[1]
    fed = {r.path: [g.index for g in r.hidden_groups] for r in graph.hidden_param_op_relations}
    assert fed == {
        ("rnn1", "Wrz", "weight"): [0],
        ("rnn1", "Wh", "weight"): [0],
        ("rnn2", "W", "weight"): [1],
    }
    assert {r.operation for r in graph.hidden_param_op_relations} == {"dot_general", "add"}
    assert all(
        "test_peer_surface" not in r.source or r.source for r in graph.hidden_param_op_relations
    )
    assert report.excluded_weights == [(("out", "weight"), "acts at its own step only")]
    assert (
        report.counts["hidden_groups"] == 2
        and report.counts["etrace_weights"] == 3
        and report.counts["errors"] == 0
    )
    assert report.dynamic_states == []
    assert (
        set(graph.dict()) >= {"hidden_groups", "diagnostics", "module_info"}
        and graph.hidden_perturb is None
    )
    assert str(report) in report.to_str(2) and "leaves out" in report.to_str(2)
    shown = io.StringIO()
    learner.show_graph(file=shown)
    assert shown.getvalue().strip() == str(report).strip()


class LowRank(Leaky):
    """The input weight is a product of two factors."""

    def __init__(self):
        super().__init__()
        del self.w
        self.low = brainstate.ParamState(brainstate.random.randn(IN, 2))
        self.high = brainstate.ParamState(brainstate.random.randn(2, N))

    def update(self, x):
        self.h.value = self.step(
            self.h.value, x @ self.low.value @ self.high.value + self.h.value @ self.r.value
        )
        return self.h.value @ self.o.value


def test_both_factors_of_a_low_rank_weight_have_relations():
    learner = braintrace.compile(LowRank(), "d_rtrl", jnp.zeros(IN))
    fed = {
        r.path: [g.index for g in r.hidden_groups] for r in learner.graph.hidden_param_op_relations
    }
    assert fed == {("low",): [0], ("high",): [0], ("r",): [0]}  # and none of the readout
    for path in fed:
        assert [
            r.weight_path
            for r in learner.graph.explain(weight_path=path, kind=DiagnosticKind.RELATION_INCLUDED)
        ] == [path]
    assert {
        r.weight_path
        for r in learner.graph.explain(kind=DiagnosticKind.RELATION_EXCLUDED_SHAPE_MISMATCH)
    } == set()
    excluded = learner.graph.explain(kind=DiagnosticKind.RELATION_EXCLUDED_NON_TEMPORAL)
    assert {r.weight_path for r in excluded} == {("o",)}


def test_diagnostics_can_be_asked():
    graph = braintrace.compile(Two(), "d_rtrl", jnp.zeros(IN)).graph
    [readout] = graph.explain(
        weight_path=("out", "weight"), kind=DiagnosticKind.RELATION_EXCLUDED_NON_TEMPORAL
    )[:1]
    assert readout.level is DiagnosticLevel.INFO and "acts at its own step only" in readout.message
    [merged] = graph.explain(kind=DiagnosticKind.HIDDEN_GROUP_MERGED)
    assert merged.hidden_paths == (("rnn2", "h"), ("rnn2", "c"))
    partial = graph.explain(
        weight_path=("rnn1", "Wh", "weight"), kind=DiagnosticKind.RELATION_PARTIAL_PATH
    )
    assert partial and all(
        r.level is DiagnosticLevel.WARNING and r.context["source"] for r in partial
    )


def test_graph_without_a_learner():
    model = Leaky()
    nn.init_all_states(model)
    graph = braintrace.compile_etrace_graph(model, jnp.zeros(IN))
    assert str(graph.exactness("w")) == "approximate"
    whole = braintrace.compile_etrace_graph(model, jnp.zeros(IN), include_recurrent_mixing=True)
    assert str(whole.exactness("w")) == "exact"
    groups, of_path = braintrace.find_hidden_groups_from_module(model, jnp.zeros(IN))
    assert of_path == {("h",): groups[0]}
    assert len(braintrace.find_hidden_param_op_relations_from_module(model, jnp.zeros(IN))) == 2


def test_states_that_no_derivative_reaches_are_dynamic():
    class Counting(Leaky):
        def init_state(self, batch_size=None):
            super().init_state(batch_size)
            self.n = brainstate.ShortTermState(jnp.zeros((), jnp.int32))

        def update(self, x):
            self.n.value = self.n.value + 1
            return super().update(x)

    assert braintrace.compile(Counting(), "d_rtrl", jnp.zeros(IN)).report.dynamic_states == [("n",)]


# Control flow
# --------------------------------------------------------------------------------------------------


class Branching(Leaky):
    def step(self, h, z):
        return jax.lax.cond(
            h.sum() > 0, lambda h, z: jnp.tanh(0.8 * h + z), lambda h, z: 0.5 * h + z, h, z
        )


class SubSteps(Leaky):
    def step(self, h, z):
        return jax.lax.scan(lambda h, _: (h + 0.1 * (jnp.tanh(z) - h), None), h, None, length=20)[0]


def kinds(learner):
    return {r.kind for r in learner.report.diagnostics}


def test_a_cond_is_selected_from_or_left_alone():
    x = jnp.zeros(IN)
    default = braintrace.compile(Branching(), "d_rtrl", x)
    assert DiagnosticKind.COND_IF_CONVERTED in kinds(default) and default.report.etrace_weights
    with pytest.raises(
        braintrace.NotSupportedError, match=r"(?s)inside a cond .*test_peer_surface"
    ):
        braintrace.compile(Branching(), "d_rtrl", x, control_flow=ControlFlowPolicy(cond="opaque"))
    alone = ControlFlowPolicy(cond="opaque", etp_in_control_flow="exclude")
    learner = braintrace.compile(Branching(), "d_rtrl", x, control_flow=alone)
    assert (
        DiagnosticKind.COND_CONVERSION_SKIPPED in kinds(learner)
        and learner.report.counts["instantaneous"] == 2
    )
    xs, ys = sequences()  # its effect on the same step is exact
    one = gradient(learner, xs[:1], ys[:1])
    bptt = learner.check_gradients(
        xs[:1], ys[:1], step_fn=lambda x, y: jnp.sum((learner(x) - y) ** 2)
    )
    assert jnp.any(one["w",] != 0) and bptt.ok


def test_loops_are_unrolled_as_the_policy_says():
    x, (xs, ys) = jnp.zeros(IN), sequences()
    model = SubSteps()
    expected = gradient(braintrace.compile(model, "d_rtrl", x), xs, ys)
    for policy in (
        ControlFlowPolicy(),
        ControlFlowPolicy(scan_unroll_limit=20, scan_descent="off"),
    ):
        learner = braintrace.compile(model, "d_rtrl", x, control_flow=policy)
        assert DiagnosticKind.SCAN_UNROLLED in kinds(learner)
        assert_close(gradient(learner, xs, ys), expected)
    with pytest.raises(braintrace.NotSupportedError, match=r"(?s)20 sub-steps.*at most 16"):
        braintrace.compile(model, "d_rtrl", x, control_flow=ControlFlowPolicy(scan_descent="off"))
    alone = ControlFlowPolicy(scan_descent="off", etp_in_control_flow="exclude")
    nn.init_all_states(model)
    learner = braintrace.D_RTRL(model, control_flow=alone).compile_graph(x)
    assert (
        DiagnosticKind.SCAN_UNROLL_SKIPPED in kinds(learner)
        and learner.report.counts["instantaneous"] == 2
    )


def test_control_flow_may_not_nest_deeper_than_the_policy_says():
    class Nested(Leaky):
        def step(self, h, z):
            inner = lambda h: jax.lax.scan(lambda h, _: (0.9 * h + z, None), h, None, length=2)[0]
            return jax.lax.scan(lambda h, _: (inner(h), None), h, None, length=2)[0]

    with pytest.raises(braintrace.CompilationError, match="nests too deeply"):
        braintrace.compile(
            Nested(),
            "d_rtrl",
            jnp.zeros(IN),
            control_flow=ControlFlowPolicy(fixpoint_iteration_limit=1),
        )
    braintrace.compile(
        Nested(),
        "d_rtrl",
        jnp.zeros(IN),
        control_flow=ControlFlowPolicy(fixpoint_iteration_limit=2),
    )


@pytest.mark.parametrize(
    "fields", [{"cond": "select"}, {"scan_unroll_limit": 2.5}, {"fixpoint_iteration_limit": 0}]
)
def test_wrong_policies(fields):
    with pytest.raises(braintrace.UsageError, match="in a ControlFlowPolicy"):
        ControlFlowPolicy(**fields)


# Learners
# --------------------------------------------------------------------------------------------------


def test_vmap_gives_a_learner_of_the_batch():
    model, xs = Leaky(), brainstate.random.randn(T, 5, IN)
    learner = braintrace.compile(model, "d_rtrl", xs[0], batch_size=5, vmap=True)
    assert isinstance(learner, braintrace.ETraceVmap) and isinstance(learner, nn.Vmap)
    assert isinstance(learner, braintrace.SequenceDriverMixin)
    assert (
        isinstance(learner.module, braintrace.D_RTRL)
        and learner.module.report.counts == learner.report.counts
    )
    step_fn = lambda x: jnp.sum(learner(x) ** 2)
    whole = learner.etrace_grad(xs, step_fn=step_fn, reduction="sum", window=3)
    learner.reset_state(model=True)
    steps = [brainstate.transform.grad(step_fn, model.states(brainstate.ParamState))(x) for x in xs]
    assert_close(whole, jax.tree.map(lambda *v: sum(v), *steps))
    assert learner.module.running_index.value == T
    with pytest.raises(braintrace.UsageError, match="Another batch size"):
        learner.reset_state(batch_size=4)


def test_evolving_moves_the_traces_on():
    model, (xs, ys) = Leaky(), sequences()
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    whole = gradient(learner, xs, ys, mask=jnp.arange(T) >= 3)

    def warmed_up(**options):
        learner.reset_state(model=True)
        learner.etrace_evolve(xs[:3], **options)
        step_fn = lambda x, y: jnp.sum((learner(x) - y) ** 2)
        return learner.etrace_grad(xs[3:], ys[3:], step_fn=step_fn, reduction="sum")

    for options in ({}, {"chunk_size": 2}, {"step_fn": lambda x: learner(x)}):
        assert_close(warmed_up(**options), whole)
    assert not np.allclose(
        warmed_up(traces=False)["w",], whole["w",], rtol=1e-3
    )  # control: without the warm-up's traces


def test_loss_output_by_either_name():
    model, (xs, ys) = Leaky(), sequences()
    learner = braintrace.compile(model, "d_rtrl", xs[0])
    step, total = (
        gradient(learner, xs, ys, return_value=True, loss_output=n)[1]
        for n in ("per_step", "scalar")
    )
    assert step.shape == (T,)
    np.testing.assert_allclose(step.sum(), total)


def test_verbose_prints_the_report(capsys):
    braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN), verbose=2)
    assert "relation_partial_path" in capsys.readouterr().out
    with pytest.raises(braintrace.UsageError, match="verbose"):
        braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN), verbose=3)


def test_options_of_the_peer_that_change_no_number():
    model, (xs, ys) = Leaky(), sequences()
    plain = gradient(braintrace.compile(model, "d_rtrl", xs[0]), xs, ys)
    assert_close(
        gradient(
            braintrace.compile(model, "d_rtrl", xs[0], fast_solve=False, chunked_trace=False),
            xs,
            ys,
        ),
        plain,
    )
    with pytest.raises(braintrace.UsageError, match="no multi-step form"):
        braintrace.OTTT(model, leak=0.5, vjp_method="multi-step")


def test_init_etrace_state_clears_the_traces():
    learner = braintrace.compile(Leaky(), "d_rtrl", jnp.zeros(IN))
    learner(jnp.ones(IN))
    assert any(jnp.any(v != 0) for v in jax.tree.leaves(learner.get_etrace_of(("w",))))
    learner.init_etrace_state()
    assert all(jnp.all(v == 0) for v in jax.tree.leaves(learner.etrace.value))
    assert set(learner.path_to_states) == {("h",), ("w",), ("r",), ("o",)}


def test_gradients_summed_with_a_leak():
    with brainstate.environ.context(dt=1.0 * u.ms):
        summed = braintrace.GradExpon({"w": jnp.zeros(3)}, 10.0 * u.ms)
    assert summed.decay == pytest.approx(np.exp(-0.1))
    summed.update({"w": jnp.ones(3)})
    np.testing.assert_allclose(summed.update({"w": jnp.ones(3)})["w"], 1 + np.exp(-0.1))
    summed.reset_state()
    assert jnp.all(summed.gradients.value["w"] == 0)
    for wrong in (1.0, 0, -2.0 * u.ms, 3.0 * u.mV, "fast"):
        with (
            brainstate.environ.context(dt=1.0 * u.ms),
            pytest.raises(braintrace.UsageError, match="tau_or_decay"),
        ):
            braintrace.GradExpon(jnp.zeros(3), wrong)
    with pytest.raises(braintrace.UsageError, match="another structure"):
        summed.update(jnp.ones(3))
