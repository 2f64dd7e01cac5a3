import brainstate
import pytest


@pytest.fixture(autouse=True)
def double_precision():
    """Models in float64, and the same random numbers in every test."""
    brainstate.environ.set(precision=64)
    brainstate.random.seed(0)
