"""Each algorithm gives its oracle's gradient: step by step, in windows, on every kind of cell."""

from functools import partial

import jax
import pytest

from ._rules import CASES, QUICK, apart, learner, norm, oracle, same, stepwise, windowed
from .cells import data


@pytest.mark.parametrize(("name", "case"), [(n, c) for c, v in CASES.items() for n in v.cells])
def test_equals_its_oracle(case, name):
    given, this, driver = data(name), learner(case, name), CASES[case].driver()

    @partial(jax.jit, compiler_options=QUICK)
    def every_way(*given):
        return windowed(this, given, 1, **driver), windowed(this, given, 3, **driver), stepwise(this, given, **driver)

    right = oracle(case, name)
    assert min(norm(right).values()) > 1e-3, norm(right)  # not dead
    for got in every_way(*given):
        same(got, right)
    neighbour = oracle(CASES[case].neighbour, name)
    assert max(apart(neighbour, right).values()) > 1e-3  # control: the neighbouring rule is another one
