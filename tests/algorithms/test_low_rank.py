"""Weights of low rank, `(x @ A) @ B`: both factors have their algorithm's gradient, against the
oracles.
"""

import jax
import jax.numpy as jnp
import pytest

import braintrace
from braintrace import checks
from braintrace.checks import Layer, LayeredCell
from zoo._interpret import once

from ._rules import DECAYS, SUM, apart, drawn, norm, same, stepwise, windowed
from ._shapes import sizes_in
from .cells import LEAK, lif_move, read
from .cells import fire as spikes

I, N, O, R, B, T = 7, 5, 2, 3, 2, 6


def low_rank(p, below, own, one):
    return below @ p["A"] @ p["B"] + own @ p["C"] @ p["D"] + one * p["b"]


def scaled(p, below, own, one):
    """Scales in between, transposed factors and results, and factors that are computed from
    parameters.
    """
    first = -(2.0 * (below @ p["A"])) @ jnp.abs(p["B"])
    return first + ((p["C"].T @ own.T) / 3.0).T @ p["D"] + one * p["b"]


SHAPES = {"A": (I, R), "B": (R, N), "C": (N, R), "D": (R, N), "b": (N,), "o": (N, O)}
DRIVES = {"low rank": low_rank, "scaled": scaled}
RULES = {
    "d_rtrl": ({}, checks.layered_oracle, {}),
    "pp_prop": ({"decay_or_rank": DECAYS}, checks.pp_prop_oracle, {"decays": DECAYS}),
    "ottt": ({"leak": LEAK}, checks.ottt_oracle, {"leak": LEAK}),
    "eprop": ({"kappa_filter_decay": 0.7}, checks.eprop_oracle, {"kappa": 0.7}),
    "ostl_recurrent": ({}, checks.layered_oracle, {"recurrent": True}),
}


def network(drive):
    cell = LayeredCell((Layer(DRIVES[drive], lif_move, spikes),), read, LEAK)
    params = {k: 0.8 * drawn(*shape) for k, shape in SHAPES.items()}
    carry, xs, ys = (
        (0.3 * drawn(B, N), 0.3 * drawn(B, O)),
        1.5 * drawn(T, B, I),
        drawn(T, B, O, seed=1),
    )
    return cell, jax.tree.map(jnp.asarray, (params, carry, xs, ys))


@pytest.mark.parametrize(
    ("drive", "rule"),
    [(d, r) for d in DRIVES for r in RULES if (d, r) != ("scaled", "ostl_recurrent")],
)  # which wants the samples along axis 0 of each product's data
def test_equals_its_oracle(drive, rule):
    options, oracle, oracle_options = RULES[rule]
    cell, given = network(drive)
    params, carry, xs, _ = given
    this = braintrace.compile(cell, rule, xs[0], params=params, carry=carry, **options)

    @once
    def every_way(*given):
        right = oracle(cell, *given, **SUM, **oracle_options)[0]
        return right, windowed(this, given, 1), windowed(this, given, 3), stepwise(this, given)

    right, *found = every_way(*given)
    assert min(norm(right).values()) > 1e-3, norm(right)  # not dead
    for got in found:
        same(got, right)
    instant = checks.ottt_oracle(cell, *given, **SUM, leak=0.0)[0]
    assert (
        min(apart(instant, {k: right[k] for k in "ABCD"}).values()) > 1e-3
    )  # control: both factors are traced


@pytest.mark.parametrize("drive", DRIVES)
def test_windows_inside_one_objective(drive):
    """`update_window`, where weights are live and no perturbation acts."""
    cell, given = network(drive)
    params, carry, xs, ys = given
    this = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=carry)

    def objective(params):
        state, total = this.init(params, carry), 0.0
        for start in (0, 3):
            state, outs = this.update_window(params, state, xs[start : start + 3])
            total += sum(
                jnp.sum(SUM["loss_fn"](out, y))
                for out, y in zip(outs, ys[start : start + 3], strict=True)
            )
        return total

    right = checks.layered_oracle(cell, *given, **SUM)[0]
    same(jax.grad(objective)(params), right)
    assert (
        max(apart(checks.bptt_gradient(cell, *given, **SUM)[0], right).values()) > 1e-3
    )  # control


def test_a_factorised_rule_makes_nothing_of_the_size_of_the_full_matrix():
    cell, (params, carry, xs, ys) = network("low rank")

    def has_full(rule, **options):
        this = braintrace.compile(cell, rule, xs[0], params=params, carry=carry, **options)
        state = this.init(params, carry)
        run = lambda p: this.etrace_grad(p, state, xs, ys, window=1, return_state=False, **SUM)[0]
        shapes = sizes_in(jax.make_jaxpr(run)(params).jaxpr)
        return any({I, N} <= set(s) for s in shapes)

    assert not has_full("pp_prop", decay_or_rank=DECAYS)
    assert not has_full("ottt", leak=LEAK)
    assert has_full("d_rtrl")  # control: the trace of A is that of the whole product


def report_of(step, **params):
    params = {k: jnp.asarray(drawn(*shape)) for k, shape in params.items()}
    cell = lambda p, h, x: (h := 0.8 * h + jnp.tanh(step(p, x)), h)
    learner = braintrace.compile(
        cell, "d_rtrl", jnp.ones((B, I)), params=params, carry=jnp.zeros((B, N))
    )
    return {row.path: str(row.exactness) for row in learner.graph.parameters}


def test_what_is_no_chain_stays_instantaneous():
    """A nonlinearity in between, a sum over the samples, a second reader: the report says that A's
    effect is not carried on.
    """
    exact = report_of(lambda p, x: x @ p["A"] @ p["B"], A=(I, R), B=(R, N))
    assert exact == {"['A']": "exact", "['B']": "exact"}
    cases = {
        "nonlinear": lambda p, x: jnp.tanh(x @ p["A"]) @ p["B"],
        "two readers": lambda p, x: _twice(x @ p["A"], p["B"]),
        "sum over samples": lambda p, x: jnp.ones((B, B)) @ (x @ p["A"]) @ p["B"],
    }
    for case in cases.values():
        assert report_of(case, A=(I, R), B=(R, N)) == {"['A']": "instantaneous", "['B']": "exact"}


def _twice(u, W):
    return u @ W + u @ jnp.square(W)
