"""Views of the analysis, and control flow inside a step, in the words of the PyPI package."""

import io

import brainstate
import jax
import jax.numpy as jnp
import pytest
from brainstate import nn

import braintrace
from braintrace import ControlFlowPolicy, DiagnosticKind, DiagnosticLevel

from .leaky import IN, OUT, Leaky, N, gradient, sequences
from .models import assert_close

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
    with pytest.raises(braintrace.NotSupportedError, match=r"(?s)inside a cond .*test_views"):
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
