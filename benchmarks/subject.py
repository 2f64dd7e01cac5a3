"""A program compiled and ready to be timed, with what it costs beside time."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .work import Program

_MOST_BYTES = 10 << 30  # a program that needs more is not run, where the device names no limit


@dataclasses.dataclass
class Subject:
    """`seconds()` runs it once. `first`: seconds from the model to the compiled program; `peak`:
    bytes, see README.md.
    """

    program: Program
    call: Any
    first: float
    peak: int | None

    def __post_init__(self) -> None:
        self.state = jax.tree.map(jnp.array, self.program.state)
        self.result: Any = None

    def run(self) -> None:
        """One repetition; its gradients are kept until the next one."""
        p = self.program
        self.result, self.state = jax.block_until_ready(self.call(p.fixed, self.state, p.xs, p.ys))

    def seconds(self) -> float:
        start = time.perf_counter()
        self.run()
        return time.perf_counter() - start

    def gradients(self) -> dict[str, Any]:
        """Of the last repetition, by parameter."""
        return {k: np.asarray(v) for k, v in self.program.names(self.result).items()}


def subject(make: Any) -> Subject:
    """Compile what `make()` gives, and run it once."""
    start = time.perf_counter()
    program = make()
    if not program.compiled:
        ready = Subject(program, program.function, 0.0, None)
        ready.run()
        ready.first = time.perf_counter() - start
        return ready
    donated = (1,) if jax.tree.leaves(program.state) else ()
    lowered = jax.jit(program.function, donate_argnums=donated).lower(
        program.fixed, program.state, program.xs, program.ys
    )
    call = lowered.compile()
    first = time.perf_counter() - start
    peak = _peak(call, program.traces)
    if peak is not None and peak > _most_bytes():
        raise MemoryError(f"not run: it needs {peak / 2**30:.1f} GiB")
    ready = Subject(program, call, first, peak)
    ready.run()
    return ready


def _most_bytes() -> float:
    """What a program may take: not all, as others of the same case have their traces there, too."""
    known = jax.devices()[0].memory_stats() or {}
    return 0.6 * known["bytes_limit"] if "bytes_limit" in known else _MOST_BYTES


def _peak(compiled: Any, traces: int) -> int | None:
    memory = compiled.memory_analysis()
    if memory is None:
        return None
    return (
        memory.temp_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + traces
    )
