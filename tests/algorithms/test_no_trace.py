"""Rules without a trace: no bytes, an honest certificate, and steps that are drawn."""

import jax
import numpy as np
import pytest

import braintrace
from braintrace import UsageError, checks
from braintrace.core.signals import RandomSteps
from zoo._interpret import once

from ._rules import SUM, apart, learner, norm, same, stepwise, windowed
from .cells import EXAMPLES, LEAK, T, data

NAME = "two_alif"
K = {"k": 2, "steps": 4, "steps_key": 3}


def compiled(**options):
    params, carry, xs, _ = data(NAME)
    cell = EXAMPLES[NAME].cell
    return braintrace.compile(cell, "sltt", xs[0], params=params, carry=carry, **options)


def oracle(*given, first=0, **options):
    chosen = RandomSteps(2, 4, options.pop("seed", 3)).chosen[first : first + T]
    return checks.instantaneous_oracle(EXAMPLES[NAME].cell, *given, chosen=chosen, **SUM)[0]


def test_steps_that_are_drawn():
    """In every window, step by step, and in a state that goes on."""
    this = compiled(**K)

    @once
    def every_way(params, carry, xs, ys):
        given = params, carry, xs, ys
        _, state, _ = this.etrace_grad(params, this.init(params, carry), xs, ys, **SUM)
        later = this.etrace_grad(params, state, xs, ys, window=3, **SUM)[0]
        ways = [windowed(this, given, window) for window in (1, 3, None)]
        moved = oracle(params, state.carry, xs, ys, first=T)
        other = oracle(*given, seed=4)
        return oracle(*given), [*ways, stepwise(this, given)], moved, later, other

    right, ways, right_later, later, other = every_way(*data(NAME))
    assert min(norm(right).values()) > 1e-3
    for got in ways:
        same(got, right)
    same(later, right_later)
    assert min(apart(other, right).values()) > 1e-3  # control: the draws matter


def test_each_step_is_drawn_as_often():
    chosen = RandomSteps(2, 5, 0).chosen.reshape(-1, 5)
    assert (chosen.sum(1) == 2).all()
    error = np.sqrt(0.4 * 0.6 / len(chosen))
    assert np.abs(chosen.mean(0) - 0.4).max() < 4 * error
    assert len(np.unique(chosen, axis=0)) == 10  # every pair


def test_no_bytes_and_what_the_report_says():
    params, carry, _, _ = data(NAME)
    this = learner("sltt", NAME)
    assert not jax.tree.leaves(this.init(params, carry).traces)
    plan = this.memory_plan(100)
    assert (plan.traces, plan.forming) == (0, 0)
    rows = {row.path[2:-2]: str(row.exactness) for row in this.graph.parameters}
    assert rows == dict.fromkeys(params, "instantaneous")
    why = "no trace: only its effect at the same step is seen"
    assert {row.reason for row in this.graph.parameters} == {why}


def test_a_readout_without_memory_is_exact_until_steps_are_drawn():
    params, carry, xs, _ = data("leaky_tanh")
    cell = EXAMPLES["leaky_tanh"].cell
    found = {}
    for name, options in (("instantaneous", {}), ("sltt", K)):
        given = {"params": params, "carry": carry, **options}
        report = braintrace.compile(cell, name, xs[0], **given).graph
        found[name] = [str(report.exactness(f"['{k}']")) for k in ("W", "o")]
    assert found == {
        "instantaneous": ["instantaneous", "exact"],
        "sltt": ["instantaneous", "approximate"],
    }


@pytest.mark.parametrize("options", [{"k": 2}, {"k": 5, "steps": 4}])
def test_k_of_steps(options):
    with pytest.raises(UsageError, match=r"Invalid k\."):
        compiled(**options)


def test_a_leak_of_zero_is_its_neighbour():
    """OTTT without a leak is the same rule, at the price of the last step's input."""
    this, given = learner("sltt", "recurrent_lif"), data("recurrent_lif")
    params, carry, xs, _ = given
    cell = EXAMPLES["recurrent_lif"].cell
    ottt = [
        braintrace.compile(cell, "ottt", xs[0], params=params, carry=carry, leak=leak)
        for leak in (0.0, LEAK)
    ]

    @once
    def every_rule(*given):
        return [windowed(rule, given, 3) for rule in (this, *ottt)]

    right, same_rule, other = every_rule(*given)
    hidden = {k: right[k] for k in "WU"}
    same({k: same_rule[k] for k in hidden}, hidden)
    assert min(apart({k: other[k] for k in hidden}, hidden).values()) > 1e-3
