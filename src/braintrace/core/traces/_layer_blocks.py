"""Traces of a whole layer moved where they lie, block by block: beside them there is never more
than a block.

A trace has the shape (samples or 1, n, *shape of W's part); its samples are independent, and so are
the elements of W.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

EXACT = jax.lax.Precision.HIGHEST  # accelerators would round the operands

_IN_CACHE = 1 << 20  # bytes of a block that a processor multiplies at once
_ON_ACCELERATOR = 64 << 20


def block_bytes() -> int:
    """The size of a block on the default device."""
    return _IN_CACHE if jax.default_backend() == "cpu" else _ON_ACCELERATOR


def samples_at_once(samples: int, each: int) -> int:
    """How many samples of `each` bytes are a block: a divisor of their number."""
    most = max(1, block_bytes() // max(each, 1))
    return max(k for k in range(1, samples + 1) if samples % k == 0 and k <= most)


def mix(trace: Array, rows: Array, signal: Array) -> tuple[Array, Array]:
    """(`rows` times the trace, `signal` times the trace before): for each sample (n, n) and (n,)
    times (n, *shape of W's part).
    """
    samples, size, *part = trace.shape
    left = jnp.concatenate([rows, signal[:, None]], 1).astype(trace.dtype)
    flat = trace.reshape(samples, size, -1)
    width, each = flat.shape[2], size * trace.dtype.itemsize
    several = samples_at_once(samples, each * width)
    panel = min(width, max(1, block_bytes() // (each * several)))

    def at(sample: Any, start: Any, width: int, state: Any) -> Any:
        flat, found = state
        old = jax.lax.dynamic_slice(flat, (sample, 0, start), (several, size, width))
        new = jnp.matmul(jax.lax.dynamic_slice_in_dim(left, sample, several), old, precision=EXACT)
        flat = jax.lax.dynamic_update_slice(flat, new[:, :size], (sample, 0, start))
        return flat, jax.lax.dynamic_update_slice(found, new[:, size], (sample, start))

    state, count = (flat, jnp.zeros((samples, width), trace.dtype)), width // panel
    blocks = samples // several * count
    state = each_block(
        blocks, lambda k, s: at(k // count * several, k % count * panel, panel, s), state
    )
    if rest := width % panel:
        state = each_block(
            samples // several, lambda k, s: at(k * several, width - rest, rest, s), state
        )
    return state[0].reshape(trace.shape), state[1].reshape(samples, *part)


def each_block(count: int, body: Callable[[Any, Any], Any], state: Any) -> Any:
    """`body(k, state)` for k = 0 .. count - 1; without a loop when there is one."""
    return body(0, state) if count == 1 else jax.lax.fori_loop(0, count, body, state)
