"""Measure every algorithm on one model."""

import dataclasses
import time
from collections import Counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compile import compile
from ..core._errors import BrainTraceError
from ._cells import Model


@dataclasses.dataclass(frozen=True)
class Row:
    """One algorithm on one model.

    Attributes:
        name: the algorithm.
        planned: bytes of traces, from the graph.
        allocated: bytes of traces, of the arrays in memory.
        step: median seconds per step of a sequence's gradient.
        exact: parameters whose gradient is certified exact, and how many there are.
        cosine: to BPTT's gradient, over all parameters.
        note: why there is no number, or ''.
    """

    name: str
    planned: int = 0
    allocated: int = 0
    step: float = float("nan")
    exact: tuple[int, int] = (0, 0)
    cosine: float = float("nan")
    note: str = ""


def algorithms(model: Model) -> dict[str, dict[str, Any]]:
    """The algorithms that are compared, with options that fit the model."""
    return {
        "d_rtrl": {},
        "pp_prop": {"decay_or_rank": model.leak},
        "eprop": {"kappa_filter_decay": 0.5},
        "ostl_recurrent": {},
        "ostl_feedforward": {},
        "otpe": {"leak": model.leak},
        "otpe (approx)": {"leak": model.leak, "mode": "approx"},
        "ottt": {"leak": model.leak},
        "osttp": {"feedback_key": 0},
        "rflo": {"random_feedback_key": 0},
    }


def measure(
    model: Model, inputs: int, outputs: int, steps: int, *, repeats: int = 3, budget: int = 4 << 30
) -> list[Row]:
    """A row for BPTT and one for each algorithm, on random data; traces above `budget` bytes are
    not allocated.
    """
    lanes = jax.tree.leaves(model.carry)[0].shape[0]
    random = np.random.default_rng(1)
    xs = jnp.asarray(random.normal(size=(steps, lanes, inputs)), jnp.float32)
    ys = jnp.asarray(random.normal(size=(steps, lanes, outputs)), jnp.float32)

    @jax.jit
    def bptt(params: Any) -> Any:
        def one(carry: Any, at: Any) -> tuple[Any, Any]:
            carry, out = model.cell(params, carry, at[0])
            return carry, _loss(out, at[1])

        return jax.lax.scan(one, model.carry, (xs, ys))[1].mean()

    reference = jax.jit(jax.grad(bptt))
    wanted = reference(model.params)
    count = len(jax.tree.leaves(model.params))
    rows = [
        Row(
            "BPTT",
            step=_median(lambda: reference(model.params), repeats) / steps,
            exact=(count, count),
            cosine=1.0,
        )
    ]
    for name, options in algorithms(model).items():
        rows.append(_row(name, options, model, xs, ys, wanted, repeats, budget))
    return rows


def _row(
    name: str,
    options: dict[str, Any],
    model: Model,
    xs: Any,
    ys: Any,
    wanted: Any,
    repeats: int,
    budget: int,
) -> Row:
    extra = {"y_target": ys} if name == "osttp" else {}
    try:
        learner = compile(
            model.cell, name.split()[0], xs[0], params=model.params, carry=model.carry, **options
        )
    except BrainTraceError as error:
        return Row(name, note=str(error).splitlines()[0])
    planned = _bytes(jax.eval_shape(lambda: learner.rule.init(learner.graph)))
    kinds = Counter(str(row.exactness) for row in learner.graph.parameters)
    exact = (kinds["exact"], sum(kinds.values()))
    if planned > budget:
        return Row(
            name, planned, exact=exact, note=f"not run: its traces need {planned / 2**30:.1f} GiB"
        )
    state = learner.init(model.params, model.carry)
    gradient = lambda: learner.etrace_grad(model.params, state, xs, ys, loss_fn=_loss, **extra)[0]
    cosine = _cosine(gradient(), wanted)
    step = _median(gradient, repeats) / xs.shape[0]
    return Row(name, planned, _bytes(state.traces), step, exact, cosine)


def _loss(out: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((out - y) ** 2)


def _bytes(tree: Any) -> int:
    return sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in jax.tree.leaves(tree))


def _median(call: Any, repeats: int) -> float:
    jax.block_until_ready(call())
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _cosine(a: Any, b: Any) -> float:
    flat = [jnp.concatenate([v.reshape(-1) for v in jax.tree.leaves(t)]) for t in (a, b)]
    return float(jnp.vdot(*flat) / (jnp.linalg.norm(flat[0]) * jnp.linalg.norm(flat[1]) + 1e-30))
