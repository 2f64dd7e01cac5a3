"""Which gradients change: each row of the table in a minimal model.

Its right gradient comes from BPTT or by hand; the other one, which the page says the PyPI package
gave, is computed as well, and it is another one.
"""

import jax
import jax.numpy as jnp
import pytest

import braintrace
from zoo._interpret import run_once

from .gradients import ROWS
from .minimal import N, O, distance
from .page import DOCS, tables
from .statements import (
    STATEMENTS,
    given,
    random_feedback_and_the_readout,
    random_feedback_in_a_window,
    steps_that_are_counted,
    traces_after_a_reset,
    zero_target_in_a_window,
)

EXAMPLES = [
    pytest.param(example, id=f"{example.name}, {row[:30]}")
    for row, examples in ROWS.items()
    for example in examples
]


def test_every_row_has_a_model():
    rows = tables(DOCS / "migration.md")["Which gradients change, and why"]
    assert set(rows) == set(ROWS) | set(STATEMENTS)


@pytest.mark.parametrize("example", EXAMPLES)
def test_gradient(example):
    data = example.given()
    found, right = example.found(data), run_once(example.right, data)
    for name in example.names:
        assert distance(found[name], right[name]) < 1e-10, name
        assert jnp.linalg.norm(right[name]) > 1e-3
    if example.other is not None:
        other = run_once(example.other, data)
        assert distance(other[example.names[0]], right[example.names[0]]) > 0.05


def test_windows_that_have_no_such_form_are_refused():
    for window in (random_feedback_in_a_window, zero_target_in_a_window):
        with pytest.raises(braintrace.UsageError, match="has no multi-step form"):
            window()


def test_random_feedback_acts_on_the_error_of_the_readout():
    found = random_feedback_and_the_readout()
    assert found["another readout"] < 1e-12
    assert found["twice the loss"] == pytest.approx(2)


def test_steps_are_counted_not_calls():
    assert steps_that_are_counted() == {"counted after a window of 5": len(given().xs)}


def test_a_reset_keeps_the_compiled_batch():
    with pytest.raises(braintrace.UsageError, match="Another batch size than the compiled one"):
        traces_after_a_reset()


def test_a_bias_is_too_small_by_what_the_page_says():
    """Without an input trace it misses a factor that comes near 1 / (1 - decay)."""
    for row in ROWS["biases and elementwise parameters under `pp_prop`"]:
        data = jax.tree.map(jnp.zeros_like, row.given())
        data = data._replace(params=data.params | {"o": jnp.ones((N, O))}, ys=data.ys + 1)
        right, other = (run_once(f, data)["b"] for f in (row.right, row.other))
        assert 5 < float(right[0] / other[0]) < 10
