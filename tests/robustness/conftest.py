import brainstate
import jax
import pytest

jax.config.update("jax_enable_x64", True)


@pytest.fixture(scope="module")
def default_precision():
    """JAX as it is by default."""
    wide, precision = jax.config.jax_enable_x64, brainstate.environ.get("precision", 32)
    jax.config.update("jax_enable_x64", False)
    brainstate.environ.set(precision=32)
    yield
    brainstate.environ.set(precision=precision)
    jax.config.update("jax_enable_x64", wide)
