"""Every program runs unchanged, with its own assertions."""

import re
import runpy
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

pytest.importorskip("braintools")

from braintools.optim import OptaxOptimizer

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_program_runs(path):
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # those of the frameworks; a program that is about warnings records them itself
        runpy.run_path(str(path), run_name="__main__")


@pytest.mark.parametrize(
    "name", ["refractory_clock", "schedules_and_clipping", "patterns_of_spikes", "shd_two_layers"]
)
def test_a_program_fails_where_nothing_is_learned(name, monkeypatch):
    """The control: with gradients of zero its assertion of a falling loss does not hold."""
    step = OptaxOptimizer.step
    zero = lambda grads: jax.tree.map(jnp.zeros_like, grads)
    monkeypatch.setattr(OptaxOptimizer, "step", lambda self, grads: step(self, zero(grads)))
    path = next(p for p in PROGRAMS if p.stem == name)
    with warnings.catch_warnings(), pytest.raises(AssertionError):
        warnings.simplefilter("ignore")
        runpy.run_path(str(path), run_name="__main__")


def test_programs_are_in_the_style_of_the_package():
    assert len(PROGRAMS) >= 81
    for path in PROGRAMS:
        text = path.read_text()
        assert "import braintrace" in text and re.search(r"^assert ", text, re.MULTILINE), path
        assert not re.search(r"braintrace\.(checks|tasks|_)|reset_state\(model=", text), (
            path
        )  # names of this library alone
