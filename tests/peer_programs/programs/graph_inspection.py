"""The pages on graphs: `show_graph`, the report's members, the graph's groups and relations, a
graph without a learner.
"""

import contextlib
import io

import brainstate
import jax.numpy as jnp

import braintrace


class SingleLayerRNN(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        self.rnn = braintrace.nn.ValinaRNNCell(n_in, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_out)

    def update(self, x):
        return self.out(self.rnn(x))


class TwoLayerRNN(brainstate.nn.Module):
    def __init__(self, n_in, n_rec, n_out):
        super().__init__()
        self.rnn1 = braintrace.nn.GRUCell(n_in, n_rec)
        self.rnn2 = braintrace.nn.GRUCell(n_rec, n_rec)
        self.out = braintrace.nn.Linear(n_rec, n_out)

    def update(self, x):
        return self.out(self.rnn2(self.rnn1(x)))


printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    learner = braintrace.compile(
        SingleLayerRNN(10, 8, 5), braintrace.D_RTRL, jnp.zeros(10), verbose=2
    )
    learner.show_graph()
    learner.report.show(1)
assert "rnn" in printed.getvalue()

graph = learner.graph
assert [(g.index, g.num_state, g.varshape, list(g.hidden_paths)) for g in graph.hidden_groups] == [
    (0, 1, (8,), [("rnn", "h")])
]
for relation in graph.hidden_param_op_relations:
    assert set(relation.trainable_paths.values()) == {("rnn", "W", "weight")}
    assert [g.index for g in relation.hidden_groups] == [0] and relation.primitive is not None
assert learner.report.counts["hidden_groups"] == 1 and learner.report.counts["errors"] == 0
assert {path for path, _ in learner.report.etrace_weights} == {("rnn", "W", "weight")}
assert ("out", "weight") in {path for path, _ in learner.report.excluded_weights}

learner2 = braintrace.compile(TwoLayerRNN(10, 8, 5), braintrace.D_RTRL, jnp.zeros(10))
graph2 = learner2.graph
assert [list(g.hidden_paths) for g in graph2.hidden_groups] == [[("rnn1", "h")], [("rnn2", "h")]]
fed = {
    path: [g.index for g in r.hidden_groups]
    for r in graph2.hidden_param_op_relations
    for path in r.trainable_paths.values()
}
assert (
    all(groups == [0 if path[0] == "rnn1" else 1] for path, groups in fed.items()) and len(fed) >= 4
)

model_direct = SingleLayerRNN(10, 8, 5)
brainstate.nn.init_all_states(model_direct)
graph_direct = braintrace.compile_etrace_graph(model_direct, jnp.zeros(10))
assert len(graph_direct.hidden_groups) == 1 and isinstance(graph_direct, braintrace.ETraceGraph)
assert {"hidden_groups", "hidden_param_op_relations", "diagnostics"} <= set(graph_direct.dict())
included = graph_direct.explain(kind=braintrace.DiagnosticKind.RELATION_INCLUDED)
assert all(record.level is braintrace.DiagnosticLevel.INFO for record in included)
assert braintrace.CompilationReport(graph_direct).counts["hidden_groups"] == 1
