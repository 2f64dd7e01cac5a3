"""The traces of a dense weight through the trace kernel: moved, contracted and the step's own
gradient added, in one pass.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike, Float

from ..analysis import Site
from ..kernels import MOST_SLOTS, Operands, advance_and_contract
from ..step import Values
from ._sensitivity import Moves


def has_kernel(site: Site, dtype: DTypeLike) -> bool:
    """Whether traces of this dtype can take the kernel."""
    slots = [len(place.slots) for place in site.places]
    laid_out = (
        site.rule.outer_layout is not None
        and 0 not in site.trace_shape
        and dtype in (np.float32, np.float64)
    )
    return laid_out and bool(slots) and min(slots) > 0 and max(slots) <= MOST_SLOTS


def pass_over(
    site: Site,
    traces: Sequence[Values],
    signals: Sequence[Values],
    total: Array,
    data: Values | None,
    now: Float[Array, "*y"] | None,
    moves: Sequence[Moves] | None,
) -> tuple[list[list[Array]], Array]:
    """(new traces, `total` plus the gradient of the weight).

    `signals`, of each place and slot and shaped as y, meet the old traces. With `now`, the
    derivative with respect to y of the only step of `data` (time first), that step's own gradient
    is added. With `moves` the traces are carried through the steps of `data`.
    """
    [[some, *_], *_], across = traces, site.rule.outer_layout == "io"
    dtype, samples = some.dtype, some.size // site.weight.size
    outputs = site.y.size // samples
    inputs = site.weight.size // outputs
    matrix = (inputs, outputs) if across else (outputs, inputs)
    by_sample = lambda v: v.astype(dtype).reshape(samples, outputs)
    by_time = lambda d: jnp.swapaxes(d.astype(dtype).reshape(-1, samples, outputs), 0, 1)
    x = jnp.zeros((samples, 0, inputs), dtype)
    if data is not None:
        x = jnp.swapaxes(site.rule.outer(list(data)).astype(dtype), 0, 1)
    fits = total.dtype == dtype
    gradient = total.reshape(matrix) if fits else jnp.zeros(matrix, dtype)
    new = []
    for k, (signal, old) in enumerate(zip(signals, traces, strict=True)):
        rows, drives = ((), ()) if moves is None else moves[k]
        operands = Operands(
            gradient=gradient,
            x=x,
            now=None if now is None or k else by_sample(now),
            signal=tuple(map(by_sample, signal)),
            old=tuple(e.reshape(samples, *matrix) for e in old),
            rows=jax.tree.map(by_sample, rows),
            drive=jax.tree.map(by_time, drives),
        )
        gradient, moved = advance_and_contract(across, operands)
        new.append([e.reshape(site.trace_shape) for e in moved])
    gradient = gradient.reshape(total.shape)
    return new, gradient if fits else total + gradient.astype(total.dtype)
