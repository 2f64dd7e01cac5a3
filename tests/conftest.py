"""For all tests: the programs are small and run once or twice, so compiling them quickly matters, and running them does not."""

import os

os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import brainstate
import jax
import pytest


@pytest.fixture
def single_precision():
    """JAX as it is by default, whatever other tests of this process have set."""
    wide, precision = jax.config.jax_enable_x64, brainstate.environ.get("precision", 32)
    jax.config.update("jax_enable_x64", False)
    brainstate.environ.set(precision=32)
    brainstate.random.seed(0)
    yield
    brainstate.environ.set(precision=precision)
    jax.config.update("jax_enable_x64", wide)
