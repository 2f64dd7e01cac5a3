"""What a compilation costs, each measurement in a process of its own: `python -m
benchmarks.compile_time`.

The cell of the analysis is a layer of adaptive leaky neurons with 10 inputs and no recurrent
weights, so that the neurons and the samples rule the cost. Its trace by JAX is not counted: it is
timed beside and taken off. Peaks are those of the analysis: of what NumPy and Python allocate, and
how much the process grows.
"""

import json
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[1]
_ANALYSES = ((100_000, 1), (100_000, 32), (1_000_000, 1))  # neurons, samples
_FIRST_CALLS = (("gru", 512), ("lif", 512))
_IMPORTS = "import time; s = time.perf_counter(); import {}; print(time.perf_counter() - s)"
_REPEATS = 5


def main() -> int:
    """Measure and print the table."""
    print(f"{'neurons':>9}  samples  compile (s)  NumPy peak / state  growth of RSS / state")
    for neurons, samples in _ANALYSES:
        plain, traced = (_apart("analysis", neurons, samples, kind) for kind in ("time", "memory"))
        print(
            f"{neurons:>9,}  {samples:>7}  {plain['seconds']:>11.2f}  {traced['peak']:>18.1f}  "
            f"{plain['growth']:>21.1f}"
        )
    print(f"\n{'first call':>9}  compile (s)  first gradient (s)")
    for cell, neurons in _FIRST_CALLS:
        found = _apart("first_call", cell, neurons)
        print(f"{cell:>4} {neurons:>5}  {found['compile']:>11.2f}  {found['gradient']:>18.2f}")
    alone, both = (_import_time(names) for names in ("jax", "jax, braintrace"))
    print(f"\nimport braintrace: {both - alone:.2f} s beyond import jax ({alone:.2f} s)")
    return 0


def analysis(neurons: str, samples: str, kind: str) -> dict[str, float]:
    """Seconds and bytes of `compile`, in one of two processes: tracemalloc makes all slower."""
    import jax
    import jax.numpy as jnp

    import braintrace

    N, B = int(neurons), int(samples)
    params = {"W": jnp.ones((10, N)), "beta": jnp.ones(N)}
    carry, x = (jnp.zeros((B, N)), jnp.zeros((B, N))), jnp.zeros((B, 10))

    def cell(params: Any, carry: Any, x: Any) -> Any:
        V, a = carry
        z = jax.nn.sigmoid(V - 1 - params["beta"] * a)
        V = 0.9 * V - z + x @ params["W"]
        return (V, 0.98 * a + z), V

    jax.block_until_ready(params)
    start = time.perf_counter()
    jax.make_jaxpr(cell)(params, carry, x)
    trace = time.perf_counter() - start
    size = sum(v.nbytes for v in carry)
    before = _resident()
    if kind == "memory":
        tracemalloc.start()
    start = time.perf_counter()
    braintrace.compile(cell, "d_rtrl", x, params=params, carry=carry)
    seconds = time.perf_counter() - start - trace
    peak = tracemalloc.get_traced_memory()[1] if kind == "memory" else 0
    return {"seconds": seconds, "peak": peak / size, "growth": (_resident() - before) / size}


def first_call(name: str, neurons: str) -> dict[str, float]:
    """Seconds of `compile`, and of the first gradient of 128 steps of 32 samples: JAX's trace of it
    and XLA's compilation, in a process that has compiled another cell before.
    """
    import jax

    import braintrace

    from .ours import warm_up
    from .work import Case, data_of, loss, model_of

    warm_up()
    case = Case(name, int(neurons), 32)
    model, (xs, ys) = model_of(case), data_of(case, case.steps)
    jax.block_until_ready((model, xs, ys))
    given = {"params": model.params, "carry": model.carry}
    learner, compiling = _timed(lambda: braintrace.compile(model.cell, "d_rtrl", xs[0], **given))
    state = learner.init(**given)
    gradient = jax.jit(lambda p, s, xs, ys: learner.etrace_grad(p, s, xs, ys, loss_fn=loss)[0])
    arguments = model.params, state, xs, ys
    _, first = _timed(lambda: gradient.lower(*arguments).compile())
    return {"compile": compiling, "gradient": first}


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def _resident() -> int:
    """The most bytes that this process has held in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _python(*arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=_ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def _apart(name: str, *arguments: object) -> dict[str, float]:
    """What a function of this module returns in a fresh process."""
    return json.loads(_python("-m", "benchmarks.compile_time", name, *map(str, arguments)))


def _import_time(names: str) -> float:
    return statistics.median(float(_python("-c", _IMPORTS.format(names))) for _ in range(_REPEATS))


if __name__ == "__main__":
    if sys.argv[1:]:
        measure = {"analysis": analysis, "first_call": first_call}[sys.argv[1]]
        print(json.dumps(measure(*sys.argv[2:])))
    else:
        sys.exit(main())
