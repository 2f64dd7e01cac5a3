"""Edges of the step that no trace passes.

The oracles evaluate a marked step twice, as the zoo does. The mark `edge` stands around the value:
it is stopped in the evaluation that gives the next carry, and in the one that gives the output
without the old state's part.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import braintrace
from zoo._case import keep, spike

from ._leaving_out import WINDOWS, ZERO, compiled, gradient, step, stepwise, weights
from .cells import IN, OUT, B, N, assert_close, data, sample_loss, sequence_gradient

sg = lax.stop_gradient

EDGE = weights(w=(IN, N), u=(N, N), out=(N, OUT), slow=(N, OUT))
TWO = (ZERO + 0.1, ZERO - 0.2)


def adaptive(p, carry, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A membrane and an adaptation: the marked edge is that from adaptation to membrane."""
    v, a = carry
    v = 0.8 * v + mix(x) @ p["w"] + mix(old(jnp.tanh(v))) @ p["u"] - edge(0.5 * jnp.tanh(a))
    a = 0.9 * a + jnp.tanh(v)
    return (v, a), v @ p["out"] + a @ p["slow"]


def reset(p, carry, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A spiking layer with a reset that no trace passes, under a leaky readout."""
    v, y = carry
    z = spike(v - 0.3)
    v = 0.9 * v + mix(x) @ p["w"] + mix(old(z)) @ p["u"] - edge(z)
    y = 0.7 * y + mix(spike(v - 0.3)) @ p["out"]
    return (v, y), y


def gated_input(p, h, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A marked edge on the way of a parameter that came into being at the same step."""
    h = 0.8 * h + edge(jnp.tanh(x @ p["w"] + mix(old(h)) @ p["u"])) + jnp.tanh(x @ p["w"]) * 0.3
    return h, h @ p["out"]


def both_in_one(p, h, x, old=keep, mix=keep, edge=braintrace.stop_trace):
    """A marked edge that holds the old state of its own unit and what came into being at this
    step.
    """
    h = (
        0.8 * h
        + edge(jnp.tanh(0.5 * old(h) + mix(x) @ p["w"]))
        + 0.3 * jnp.tanh(mix(old(h)) @ p["u"])
    )
    return h, h @ p["out"]


def edge_oracle(marked, old_part):
    """Two evaluations. `edge`: stopped for the next carry; for the output `old_part`, the identity
    with the old state stopped in it.
    """

    def both(p, carry, x):
        new, _ = marked(p, carry, x, old=sg, mix=sg, edge=sg)
        _, out = marked(p, carry, x, old=sg, mix=keep, edge=old_part)
        return new, out

    return both


READOUT = (ZERO + 0.1, jnp.zeros((B, OUT)))
CASES = {
    # the edge holds nothing but the old state: stopped in both evaluations
    "adaptation": (adaptive, TWO, ("w", "u", "out", "slow"), edge_oracle(adaptive, sg)),
    "reset": (reset, READOUT, ("w", "u", "out"), edge_oracle(reset, sg)),
    # the edge holds what came into being at this step, and the old state through the product only,
    # which stops it already
    "both": (both_in_one, ZERO, ("w", "u", "out"), edge_oracle(both_in_one, keep)),
    "input": (gated_input, ZERO, ("w", "u", "out"), edge_oracle(gated_input, keep)),
}


@pytest.mark.parametrize("name", CASES)
def test_no_trace_passes_a_marked_edge(name):
    marked, carry, names, expected_step = CASES[name]
    params = {k: EDGE[k] for k in names}
    learner = compiled(marked, params, carry)
    open_step = lambda p, c, x: marked(p, c, x, edge=keep)
    plain = compiled(open_step, params, carry)
    xs, ys = data()
    expected = sequence_gradient(expected_step, params, carry, xs, ys)
    assert all(jnp.abs(v).max() > 1e-3 for v in jax.tree.leaves(expected))
    for window in WINDOWS:
        found = gradient(learner, window, params, carry)
        assert_close(found, expected)
        open_gradient = gradient(plain, window, params, carry)
        assert any(jnp.abs(found[k] - open_gradient[k]).max() > 1e-3 for k in params), (
            "control: the edge carried something"
        )
    assert_close(stepwise(learner, params, carry), expected)
    by_name = {row.path: row for row in learner.graph.parameters}
    assert by_name["['w']"].exactness != "exact"
    assert "braintrace.stop_trace" in {path.operation for path in by_name["['w']"].dropped}
    assert "test_stop_trace.py" in next(
        p.source for p in by_name["['w']"].dropped if p.operation == "braintrace.stop_trace"
    )
    assert "braintrace.stop_trace" in str(learner.report)
    # values, BPTT and the multi-step form pass it
    out, other = (f.etrace_evolve(params, f.init(params, carry), xs)[1] for f in (learner, plain))
    np.testing.assert_array_equal(out, other)
    bptt = [sequence_gradient(f, params, carry, xs, ys) for f in (marked, open_step)]
    assert_close(*bptt)
    report = learner.check_gradients(
        params,
        learner.init(params, carry),
        xs,
        ys,
        loss_fn=sample_loss,
        multi_step=True,
        window=None,
    )
    assert all(row.relative_error < 1e-8 for row in report.rows)


def test_a_marked_edge_within_a_layer():
    """OSTL keeps what happens inside a layer, recurrent weights included, but for the marked
    edge.
    """
    params = {k: EDGE[k] for k in ("w", "u", "out", "slow")}
    learner = compiled(adaptive, params, TWO, algorithm="ostl_recurrent")
    plain = compiled(
        lambda p, c, x: adaptive(p, c, x, edge=keep), params, TWO, algorithm="ostl_recurrent"
    )
    xs, ys = data()
    expected, bptt = (
        sequence_gradient(lambda p, c, x, e=e: adaptive(p, c, x, edge=e), params, TWO, xs, ys)
        for e in (sg, keep)
    )
    for window in WINDOWS:
        assert_close(gradient(learner, window, params, TWO), expected)
        assert_close(
            gradient(plain, window, params, TWO), bptt
        )  # control: without the mark OSTL of one layer is BPTT
    assert jnp.abs(expected["w"] - bptt["w"]).max() > 1e-3
    assert (
        learner.graph.exactness("['w']") == "approximate"
        and plain.graph.exactness("['w']") == "exact"
    )


def test_a_mark_on_the_way_to_outputs_changes_nothing():
    marked = lambda p, h, x: (lambda h: (h, braintrace.stop_trace(h) @ p["out"] + p["b"]))(
        step(p, h, x)[0]
    )
    for algorithm in ("d_rtrl", "eprop", "ostl_recurrent"):
        learner, plain = compiled(marked, algorithm=algorithm), compiled(algorithm=algorithm)
        assert_close(gradient(learner, 3), gradient(plain, 3))
        assert "stop_trace" not in str(learner.report)


def test_a_marked_parameter_is_excluded():
    marked = lambda p, h, x: step({**p, "u": braintrace.stop_trace(p["u"])}, h, x)
    assert_close(gradient(compiled(marked), 3), gradient(compiled(exclude="u"), 3))
    assert compiled(marked).graph.exactness("['u']") == "instantaneous"


def test_outside_of_a_learner_it_is_the_identity():
    tree = {"x": jnp.arange(3.0), "n": jnp.arange(3), "k": jax.random.key(0)}
    for f in (braintrace.stop_trace, jax.jit(braintrace.stop_trace)):
        assert all(
            (a == b).all()
            for a, b in zip(jax.tree.leaves(f(tree)), jax.tree.leaves(tree), strict=True)
        )
    double = jax.vmap(jax.grad(lambda x: jnp.square(braintrace.stop_trace(x))))(jnp.arange(3.0))
    np.testing.assert_array_equal(double, 2 * jnp.arange(3.0))
    _, tangent = jax.jvp(braintrace.stop_trace, (jnp.ones(2),), (jnp.array([2.0, 3.0]),))
    np.testing.assert_array_equal(tangent, [2.0, 3.0])
