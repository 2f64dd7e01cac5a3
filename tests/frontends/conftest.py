import brainstate
import pytest


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    """Models in float64."""
    brainstate.environ.set(precision=64)
