"""The precision of JAX and brainstate in the tests: double, unless a test asks for single.

Both are settings of the process, so what one test left would be what the next one runs in.
"""

import contextlib
from collections.abc import Iterator

import brainstate
import jax


def set_bits(bits: int) -> None:
    """64 for double, 32 for single precision, which is the default of both."""
    brainstate.environ.set(precision=bits)
    jax.config.update("jax_enable_x64", bits == 64)


@contextlib.contextmanager
def precision(bits: int) -> Iterator[None]:
    """Within it that precision, and behind it what was before, whatever was set within."""
    before = 64 if jax.config.jax_enable_x64 else 32
    set_bits(bits)
    try:
        yield
    finally:
        set_bits(before)
