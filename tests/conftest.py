"""For all tests: the programs are small and run once or twice, so compiling them quickly matters,
and running them does not.
"""

import quick_compilation  # isort: skip  (first: JAX reads its settings when it is imported)

from pathlib import Path

import brainstate
import jax
import pytest

#: Every compiled program takes memory mappings, of which Linux gives a process 65,530 by default;
#: then it is killed.
MOST_MAPPINGS = 20_000
MAPPINGS = Path("/proc/self/maps")

quick_compilation.collect_seldom()


@pytest.fixture(scope="session")
def users_environment():
    """The environment of a program that runs as a user starts it: JAX compiles as it does by
    default.
    """
    return quick_compilation.as_found()


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    """Compiled programs of earlier modules go when there are many."""
    yield
    if MAPPINGS.exists() and MAPPINGS.read_bytes().count(b"\n") > MOST_MAPPINGS:
        jax.clear_caches()


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
