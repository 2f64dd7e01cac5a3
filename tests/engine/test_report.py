"""The compiler's report: its rows as data, and the table that a person reads."""

import inspect

import jax.numpy as jnp
from jax.nn import sigmoid

from braintrace.core.traces import PerParameter

from ._front_end import learner, learner_for

CARRIER = PerParameter()


def gru(p, h, x):
    xr, xz, xn = jnp.split(x @ p["W"] + p["b"], 3, axis=-1)
    hr, hz, hn = jnp.split(h @ p["U"], 3, axis=-1)
    z = sigmoid(xz + hz)
    h = z * h + (1 - z) * jnp.tanh(xn + sigmoid(xr + hr) * hn)
    return h, h @ p["o"]


GOLDEN = """\
D_RTRL: 4 parameters (3 approximate, 1 exact), 1 state group, 3 sites, traces of 9.0 KiB

group  positions  slots  leaves
0      8          1      value

parameter  shape   gradient     group  trace                 why
['U']      (8,24)  approximate  0      1 x (4,8,24) 6.0 KiB  1 dropped path(s)
    dot_general test_report.py:{U} (gru)
['W']      (3,24)  approximate  0      1 x (4,3,24) 2.2 KiB  1 dropped path(s)
    dot_general test_report.py:{W} (gru)
['b']      (24,)   approximate  0      1 x (4,24) 768 B      1 dropped path(s)
    operand of add test_report.py:{W} (gru)
['o']      (8,2)   exact        -      -                     acts at its own step only

dropped path  operation    at                         parameters
recurrent     dot_general  test_report.py:{U} (gru)  ['U'] ['W'] ['b']"""


def gru_learner():
    params = {
        "W": jnp.ones((3, 24)),
        "U": jnp.ones((8, 24)),
        "b": jnp.ones(24),
        "o": jnp.ones((8, 2)),
    }
    return learner_for(gru, params, jnp.ones((4, 8)), jnp.ones((4, 3)))


def line_of(name):
    text = f'p["{name}"]'
    lines, first = inspect.getsourcelines(gru)
    return first + next(k for k, line in enumerate(lines) if text in line)


def test_the_table_of_a_gru():
    table = str(gru_learner().report)
    expected = GOLDEN.format(U=line_of("U"), W=line_of("W"))
    assert [line.split() for line in table.splitlines()] == [
        line.split() for line in expected.splitlines()
    ], table
    assert max(map(len, table.splitlines())) <= 100
    assert str(gru_learner().graph).startswith("Cell: 4 parameters")


def test_columns_are_aligned():
    lines = str(gru_learner().report).splitlines()
    head = next(line for line in lines if line.startswith("parameter"))
    for name in ("shape", "gradient", "trace", "why"):
        column = head.index(name)
        rows = [line for line in lines if line.startswith("['")]
        assert rows
        assert all(row[column - 1] == " " and row[column] != " " for row in rows), name


def test_rows_are_data():
    graph = gru_learner().graph
    rows = {r.path: r for r in graph.reports(CARRIER)}
    (site,) = rows["['U']"].sites
    assert (site.operation, site.groups, site.slots, site.shape) == (
        "dot_general",
        (0,),
        1,
        (4, 8, 24),
    )
    assert site.trace_bytes == 4 * 24 * 8 * 8
    assert site.source == f"{__file__}:{line_of('U')} (gru)"
    (bias,) = rows["['b']"].sites
    assert (bias.operation, bias.shape) == ("operand of add", (4, 24))
    assert rows["['o']"].sites == ()
    assert graph.reports()[0].sites[0].trace_bytes is None
    assert sum(graph.trace_bytes(CARRIER)) == 4 * 24 * (8 + 3 + 1) * 8


def test_bytes_are_those_of_the_traces():
    for name in (
        "alif",
        "two_recurrent_layers",
        "conv1d_recurrent",
        "embedding_recurrent",
        "lru",
        "positional_layers",
    ):
        this = learner(name)
        traces = CARRIER.init(this.graph)
        each = [sum(t.nbytes for place in site for t in place) for site in traces]
        assert this.graph.trace_bytes(CARRIER) == each, name
        assert all(each), name


def test_two_slots_two_groups_and_carried_paths():
    table = str(learner("alif").report)
    assert "2 x (2,3,4)" in table
    assert "['V'] ['a']" in table
    layers = {r.path: r for r in learner("two_recurrent_layers").graph.reports()}
    assert layers["['W1']"].sites[0].groups == (0,)
    assert layers["['W2']"].sites[0].groups == (1,)
    assert "cross-layer" in str(learner("two_recurrent_layers").report)
    assert "carried" in str(learner("delayed_product").report)
    assert "has no site" in str(learner("encoder").report)


def test_a_shared_weight_lists_every_site():
    rows = {r.path: r for r in learner("used_twice").graph.reports(CARRIER)}
    assert len(rows["['W']"].sites) == 2
    both = [
        r.sites[0]
        for r in learner("summed_weights").graph.reports(CARRIER)
        if r.path in ("['V']", "['W']")
    ]
    assert both[0] == both[1]


def test_a_cell_without_parameters_or_state_has_a_table():
    assert "0 parameters" in str(
        learner_for(lambda p, h, x: (h, x), {}, jnp.ones(3), jnp.ones(3)).report
    )
