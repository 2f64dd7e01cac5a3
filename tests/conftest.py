"""For all tests: the programs are small and run once or twice, so compiling them quickly matters,
and running them does not.
"""

import quick_compilation  # isort: skip  (first: JAX reads its settings when it is imported)

from pathlib import Path

import brainstate
import jax
import pytest

from braintrace.rules import ALGORITHMS
from precision import precision, set_bits

#: Every compiled program takes memory mappings, of which Linux gives a process 65,530 by default;
#: then it is killed.
MOST_MAPPINGS = 20_000
MAPPINGS = Path("/proc/self/maps")

quick_compilation.collect_seldom()
set_bits(64)


def pytest_collectstart():
    """A test file finds double precision when it is imported, whatever the file before it did."""
    set_bits(64)


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


@pytest.fixture(autouse=True, scope="module")
def double_precision():
    """In every file, unless it asks for another."""
    set_bits(64)
    brainstate.random.seed(0)


@pytest.fixture(autouse=True)
def kept_precision():
    """What a test sets is its own, and it draws the same random numbers in any order of tests."""
    with precision(64 if jax.config.jax_enable_x64 else 32):
        brainstate.random.seed(0)
        yield


@pytest.fixture(autouse=True)
def kept_algorithms():
    """An algorithm that a test registers is known to that test alone."""
    before = dict(ALGORITHMS)
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(before)


@pytest.fixture
def single_precision(kept_precision):
    """JAX as it is by default, for one test."""
    set_bits(32)
    brainstate.random.seed(0)


@pytest.fixture(scope="module")
def single_precision_throughout(double_precision):
    """JAX as it is by default, for a file and its fixtures."""
    with precision(32):
        yield
