"""Which gradients change: each row of the table in a minimal model.

Its right gradient comes from BPTT or by hand; the other one, which the page says the PyPI package
gave, is computed as well, and it is another one.
"""

import jax.numpy as jnp
import pytest

from zoo._interpret import run_once

from .gradients import ROWS
from .minimal import distance

EXAMPLES = [
    pytest.param(example, id=f"{example.name}, {row[:30]}")
    for row, examples in ROWS.items()
    for example in examples
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_gradient(example):
    given = example.given()
    found, right = example.found(given), run_once(example.right, given)
    for name in example.names:
        assert distance(found[name], right[name]) < 1e-10, name
        assert jnp.linalg.norm(right[name]) > 1e-3
    if example.other is not None:
        other = run_once(example.other, given)
        assert distance(other[example.names[0]], right[example.names[0]]) > 0.05
