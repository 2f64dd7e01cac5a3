import itertools

import jax
import pytest

TESTS = itertools.count(1)


@pytest.fixture(autouse=True)
def few_programs():
    """What JAX keeps of many traced programs is gigabytes."""
    yield
    if next(TESTS) % 20 == 0:
        jax.clear_caches()
