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
from ..core._errors import BrainTraceError
from ..core.analysis import Exactness, columns, size
from ..core.engine import taken
from ..gradients import bptt_gradient, compare_gradients
from ..rules import ALGORITHMS, Algorithm, Compared
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
        grows, keeps: as in `rules.Compared`.
    """

    name: str
    planned: int = 0
    allocated: int = 0
    step: float = float("nan")
    exact: tuple[int, int] = (0, 0)
    cosine: float = float("nan")
    note: str = ""
    grows: str = ""
    keeps: str = ""


def algorithms(model: Model) -> dict[str, Compared]:
    """The algorithms that are compared, with options that fit the model: all that are
    registered.
    """
    names: dict[type[Algorithm], str] = {}
    for name, algorithm in ALGORITHMS.items():
        names.setdefault(algorithm, name)
    return {
        f"{name} ({row.variant})" if row.variant else name: row
        for algorithm, name in names.items()
        for row in algorithm.compared(model.leak)
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

    def row_of(name: str, compared: Compared) -> Row:
        given: dict[str, Any] = {"params": model.params, "carry": model.carry, **compared.options}
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
        signals = {"y_target": ys, "modulator": ys[..., 0]}
        given = {"loss_fn": _loss} | {name: signals[name] for name in taken(learner.graph)}
        gradient = lambda: learner.etrace_grad(*sequence, **given)[0]
        cosine = compare_gradients(gradient(), reference, certificates).cosine
        step = _median(gradient, repeats) / steps
        allocated, keeps = _bytes(state.traces), compared.keeps
        return Row(name, planned, allocated, step, exact, cosine, grows=compared.grows, keeps=keeps)

    step = _median(lambda: bptt(model.params), repeats) / steps
    rows = [row_of(name, compared) for name, compared in algorithms(model).items()]
    exact, keeps = (count, count), "all paths"
    bptt_row = Row("BPTT", step=step, exact=exact, cosine=1.0, grows="O(T B N)", keeps=keeps)
    return [bptt_row, *rows]


def table(title: str, rows: Sequence[Row]) -> str:
    """Title and rows, aligned."""
    head = ("algorithm", "traces", "planned", "allocated", "time/step", "exact", "cosine", "keeps")
    lines: list[tuple[str, ...]] = [head]
    for r in rows:
        of_traces = (size(n) if n else "-" for n in (r.planned, r.allocated))
        time = f"{r.step * 1e3:.2f} ms" if r.step >= 1e-3 else f"{r.step * 1e6:.0f} us"
        time = "-" if r.step != r.step else time
        exact = f"{r.exact[0]}/{r.exact[1]}" if r.exact[1] else "-"
        cosine = "-" if r.cosine != r.cosine else f"{r.cosine:+.4f}"
        lines.append((r.name, r.grows, *of_traces, time, exact, cosine, r.note or r.keeps))
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
