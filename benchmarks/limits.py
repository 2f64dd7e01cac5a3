"""What this machine can do: matrix products, memory, and one pass of a trace in C."""

import ctypes
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_CACHED, _LARGE = (
    4 << 20,
    256 << 20,
)  # bytes of an array that stays in cache, and of one that does not
_TRACE = 36 << 20


def limits() -> dict[str, Any]:
    """GFLOP/s of a float32 product; GB/s of reading and writing in place, in cache and from DRAM;
    of the C kernel; and of an operation with a fresh output."""
    return {
        "sgemm GFLOP/s": _product(),
        "in place, 4 MB, GB/s": _in_place(_CACHED),
        "in place, 256 MB, GB/s": _in_place(_LARGE),
        "fresh output, 256 MB, GB/s": _fresh(_LARGE),
        "C kernel, 4 MB trace, GB/s": _kernel(_CACHED),
        "C kernel, 36 MB trace, GB/s": _kernel(_TRACE),
        "C kernel, 256 MB trace, GB/s": _kernel(_LARGE),
    }


def _best(call: Any, repeats: int = 7) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def _product(n: int = 2048) -> float:
    a, product = jnp.ones((n, n), jnp.float32), jax.jit(jnp.matmul)
    return 2 * n**3 / _best(lambda: product(a, a).block_until_ready()) / 1e9


def _in_place(size: int) -> float:
    loops = max(1, _LARGE // size)
    held = [jnp.ones(size // 4, jnp.float32)]
    scale = jax.jit(
        lambda v: jax.lax.fori_loop(0, loops, lambda _, v: 0.999 * v + 0.001, v), donate_argnums=0
    )

    def call() -> None:
        held[0] = scale(held[0]).block_until_ready()

    return 2 * size * loops / _best(call) / 1e9


def _fresh(size: int) -> float:
    a, scale = jnp.ones(size // 4, jnp.float32), jax.jit(lambda v: 0.999 * v + 0.001)
    return 2 * size / _best(lambda: scale(a).block_until_ready()) / 1e9


def _kernel(size: int) -> float | None:
    """None where JAX does not run on the CPU, or where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or jax.default_backend() != "cpu":
        return None
    n = 512
    rows = size // 4 // n
    random = np.random.default_rng(0)
    e, g = np.zeros((rows, n), np.float32), np.zeros(rows, np.float32)
    d, f, s, x = (random.uniform(0, 0.9, k).astype(np.float32) for k in (n, n, n, rows))
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "kernel.so"
        flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
        source = Path(__file__).with_name("kernel.c")
        if subprocess.run(
            [compiler, *flags, str(source), "-o", str(library)], capture_output=True
        ).returncode:
            return None
        advance = ctypes.CDLL(str(library)).advance
        pointers = [ctypes.c_void_p(v.ctypes.data) for v in (e, d, x, f, s, g)]
        loops = max(1, _LARGE // size)

        def call() -> None:
            advance(*pointers, ctypes.c_long(rows), ctypes.c_long(n), ctypes.c_long(loops))

        return 2 * size * loops / _best(call) / 1e9
