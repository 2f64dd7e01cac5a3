"""Traces of a whole layer moved where they lie, block by block: beside them there is never more
than a block.

A trace has the shape (samples or 1, n, *shape of W's part); its samples are independent, and so are
the elements of W.
"""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

Index = int | Array
State = TypeVar("State", bound=PyTree)
_Moved = tuple[Array, Array]  # traces, and what they contract to

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


def mix(
    trace: Float[Array, "B n ..."], rows: Float[Array, "B n n"], signal: Float[Array, "B n"]
) -> tuple[Float[Array, "B n ..."], Float[Array, "B ..."]]:
    """(`rows` times the trace, `signal` times the trace before), sample by sample."""
    samples, size, *part = trace.shape
    left = jnp.concatenate([rows, signal[:, None]], 1).astype(trace.dtype)
    flat = trace.reshape(samples, size, -1)
    width, each = flat.shape[2], size * trace.dtype.itemsize
    several = samples_at_once(samples, each * width)
    panel = min(width, max(1, block_bytes() // (each * several)))

    def move(sample: Index, start: Index, width: int, state: _Moved) -> _Moved:
        flat, contracted = state
        old = jax.lax.dynamic_slice(flat, (sample, 0, start), (several, size, width))
        new = jnp.matmul(jax.lax.dynamic_slice_in_dim(left, sample, several), old, precision=EXACT)
        flat = jax.lax.dynamic_update_slice(flat, new[:, :size], (sample, 0, start))
        return flat, jax.lax.dynamic_update_slice(contracted, new[:, size], (sample, start))

    state, count = (flat, jnp.zeros((samples, width), trace.dtype)), width // panel
    blocks = samples // several * count
    state = each_block(
        blocks, lambda k, s: move(k // count * several, k % count * panel, panel, s), state
    )
    if last := width % panel:
        state = each_block(
            samples // several, lambda k, s: move(k * several, width - last, last, s), state
        )
    return state[0].reshape(trace.shape), state[1].reshape(samples, *part)


def each_block(count: int, body: Callable[[Index, State], State], state: State) -> State:
    """`body(k, state)` for k = 0 .. count - 1; without a loop when there is one."""
    return body(0, state) if count == 1 else jax.lax.fori_loop(0, count, body, state)
