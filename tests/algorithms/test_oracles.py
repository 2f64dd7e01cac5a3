"""Each algorithm gives its oracle's gradient: step by step, in windows, on every kind of cell."""

import jax
import pytest

import braintrace
from braintrace.checks import eprop_oracle
from zoo._interpret import once

from ._rules import CASES, SUM, apart, learner, norm, oracle, same, stepwise, windowed
from .cells import EXAMPLES, B, data


@pytest.mark.parametrize(("name", "case"), [(n, c) for c, v in CASES.items() for n in v.cells])
def test_equals_its_oracle(case, name):
    given, this, driver = data(name), learner(case, name), CASES[case].driver(name)

    @once
    def every_way(*given):
        return (
            windowed(this, given, 1, **driver),
            windowed(this, given, 3, **driver),
            stepwise(this, given, **driver),
        )

    right = oracle(case, name)
    assert min(norm(right).values()) > 1e-3, norm(right)  # not dead
    for got in every_way(*given):
        same(got, right)
    neighbour = oracle(CASES[case].neighbour, name)
    assert (
        max(apart(neighbour, right).values()) > 1e-3
    )  # control: the neighbouring rule is another one


@pytest.mark.parametrize("name", ["two_alif", "conv_lif"])
def test_the_firing_rate_term(name):
    """The driver weighs the term as the losses are weighed; a single step takes the mean of the
    samples.
    """
    given, rate = data(name), (0.1, 2.0)
    params, carry, xs, _ = given
    cell = EXAMPLES[name].cell
    this = braintrace.compile(cell, "eprop", xs[0], params=params, carry=carry, firing_rate=rate)

    @once
    def every_way(*given):
        right = eprop_oracle(cell, *given, **SUM, kappa=0.0, firing_rate=rate)[0]
        return right, windowed(this, given, 1), windowed(this, given, 3), stepwise(this, given)

    right, one, three, steps = every_way(*given)
    same(one, right)
    same(three, right)
    plain = oracle("d_rtrl", name)
    assert (
        min(v for k, v in apart(plain, right).items() if k != "o") > 1e-3
    )  # control: without the term
    same(jax.tree.map(lambda s, p: p + B * (s - p), steps, plain), right, 1e-9)
