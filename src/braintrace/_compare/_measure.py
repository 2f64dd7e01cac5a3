"""Measure every algorithm on one model, and show what was found as a table."""

import dataclasses
import timeit
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from .._compile import compile
from ..checks import bptt_gradient, compare_gradients
from ..core._errors import BrainTraceError
from ..core.analysis import Exactness, columns, size
from ._cells import Model

_WHERE = {
    "BPTT": ("O(T B N)", "all paths"),
    "d_rtrl": ("O(B |W|)", "own-neuron paths"),
    "pp_prop": ("O(B (I + O))", "smoothed own-neuron paths"),
    "eprop": ("O(B |W|)", "own-neuron paths, readout filter"),
    "ostl_recurrent": ("O(B N |W|)", "all paths within a layer"),
    "ostl_feedforward": ("O(B |W|)", "own-neuron paths"),
    "otpe": ("O(B |W|)", "one layer further up"),
    "otpe (approx)": ("O(B (I + O))", "one layer further up, estimated"),
    "ottt": ("O(B I)", "a constant leak"),
    "osttp": ("O(B |W|)", "projected target, no error from above"),
    "rflo": ("O(B |W|)", "own-neuron paths, random feedback"),
}


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
    samples = jax.tree.leaves(model.carry)[0].shape[0]
    random = np.random.default_rng(1)
    xs = jnp.asarray(random.normal(size=(steps, samples, inputs)), jnp.float32)
    ys = jnp.asarray(random.normal(size=(steps, samples, outputs)), jnp.float32)

    sequence = model.carry, xs, ys
    bptt = jax.jit(lambda p: bptt_gradient(model.cell, p, *sequence, loss_fn=_loss)[0])
    reference, count = bptt(model.params), len(jax.tree.leaves(model.params))

    def row_of(name: str, options: dict[str, Any]) -> Row:
        given = {"params": model.params, "carry": model.carry, **options}
        try:
            learner = compile(model.cell, name.split()[0], xs[0], **given)
        except BrainTraceError as error:
            return Row(name, note=str(error).splitlines()[0])
        planned = _bytes(jax.eval_shape(lambda: learner.rule.init(learner.graph)))
        certificates = {row.path: row.exactness for row in learner.graph.parameters}
        exact = list(certificates.values()).count(Exactness.EXACT), len(certificates)
        if planned > budget:
            return Row(name, planned, exact=exact, note=f"not run: traces of {size(planned)}")
        state = learner.init(model.params, model.carry)
        sequence = model.params, state, xs, ys
        given = {"loss_fn": _loss} | ({"y_target": ys} if name == "osttp" else {})
        gradient = lambda: learner.etrace_grad(*sequence, **given)[0]
        cosine = compare_gradients(gradient(), reference, certificates).cosine
        step = _median(gradient, repeats) / steps
        return Row(name, planned, _bytes(state.traces), step, exact, cosine)

    step = _median(lambda: bptt(model.params), repeats) / steps
    rows = [row_of(name, options) for name, options in algorithms(model).items()]
    return [Row("BPTT", step=step, exact=(count, count), cosine=1.0), *rows]


def table(title: str, rows: Sequence[Row]) -> str:
    """Title and rows, aligned."""
    head = ("algorithm", "traces", "planned", "allocated", "time/step", "exact", "cosine", "keeps")
    lines: list[tuple[str, ...]] = [head]
    for r in rows:
        grows, keeps = _WHERE.get(r.name, ("", ""))
        of_traces = (size(n) if n else "-" for n in (r.planned, r.allocated))
        time = f"{r.step * 1e3:.2f} ms" if r.step >= 1e-3 else f"{r.step * 1e6:.0f} us"
        time = "-" if r.step != r.step else time
        exact = f"{r.exact[0]}/{r.exact[1]}" if r.exact[1] else "-"
        cosine = "-" if r.cosine != r.cosine else f"{r.cosine:+.4f}"
        lines.append((r.name, grows, *of_traces, time, exact, cosine, r.note or keeps))
    shown = columns(lines)
    rule = "-" * min(max(map(len, shown)), 118)
    return "\n".join([title, rule, shown[0], rule, *shown[1:]])


def _loss(out: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean((out - y) ** 2)


def _bytes(tree: PyTree) -> int:
    return sum(v.size * v.dtype.itemsize for v in jax.tree.leaves(tree))


def _median(call: Callable[[], object], repeats: int) -> float:
    once = lambda: jax.block_until_ready(call())
    once()
    return float(np.median(timeit.repeat(once, number=1, repeat=repeats)))
