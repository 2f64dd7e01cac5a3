"""Eager calls refuse results that are not finite, by name. Inside a transformation nothing is
looked at, and nothing is computed.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, PyTree

from ..cell import Cell
from ..cell._samples import place
from ..core._compat import is_differentiable, is_traced
from ..core._errors import UsageError
from ..core.analysis import BatchAxis, CellGraph
from ..core.engine import extra_of
from ..core.step import Values
from ..core.traces import Carrier, Traces
from ._state import State

_SMALL = 1 << 16  # elements that are looked at faster here than by a program


class Result(NamedTuple):
    """A value of a call: what it is, its name, and the value before the call where there was one.

    What was infinite before may be so again (a running maximum that starts at minus infinity).
    """

    what: str
    name: str
    value: Array
    before: Array | None = None
    axis: BatchAxis | None = None  # of the samples


def of_state(
    cell: Cell, carrier: Carrier, before: Values, carry: Values, traces: Traces = None
) -> list[Result]:
    """The leaves of a carry that parameters influence, and the traces of each site. Other leaves
    (the last input, say) may be as the model wants them.
    """
    graph, hidden = cell.graph, [k for k in cell.influenced if k < len(before)]
    found = [
        Result("new state", graph.leaf_paths[k], carry[k], before[k], graph.leaf_axis(k))
        for k in hidden
    ]
    if traces is None:
        return found
    own, extra = (traces["carrier"], extra_of(graph, traces)) if graph.extra else (traces, [])
    named = [(f"the algorithm's {e.name}", v) for e, v in zip(graph.extra, extra, strict=True)]
    for n, site in enumerate(graph.sites):
        paths = ", ".join(graph.parameters[k].path for k in site.params)
        named += [(f"that of {paths}", v) for v in jax.tree.leaves(carrier.of_site(own, n))]
    return found + [Result("eligibility trace", name, value) for name, value in named]


def of_parameters(before: PyTree, after: PyTree) -> list[Result]:
    """Parameters that were updated, by their paths."""
    paths = jax.tree_util.tree_flatten_with_path(after)[0]
    pairs = zip(paths, jax.tree.leaves(before), strict=True)
    named = [(jax.tree_util.keystr(path), value, old) for (path, value), old in pairs]
    return [Result("new parameter", *of) for of in named]


def of_gradients(
    graph: CellGraph, of_params: Sequence[Array | None], outside: Sequence[Array]
) -> list[Result]:
    """The gradients of the parameters, and of what a step reads outside of the model."""
    named = [(row.path, g) for row, g in zip(graph.parameters, of_params, strict=False)]
    named += [(f"value {k} that step_fn reads beside the model", g) for k, g in enumerate(outside)]
    return [Result("gradient", name, g) for name, g in named if g is not None]


def check_results(results: Iterable[Result], hint: Callable[[], str] = lambda: "") -> None:
    """Raise where one of the results is not finite; `hint` says where that may come from."""
    results = [r for r in results if r.value is not None and is_differentiable(r.value.dtype)]
    if any(is_traced(v) for r in results for v in (r.value, r.before)):
        return
    if _all_finite([r.value for r in results]):
        return
    bad = next((r for r in results if _spoilt(r.value, r.before).any()), None)
    if bad is None:
        return
    at = np.argwhere(np.asarray(_spoilt(bad.value, bad.before)))[0]
    value = np.asarray(bad.value)[tuple(at)]
    sample = ""
    if bad.axis is not None and bad.axis.is_plain and bad.axis.size > 1:
        sample = f", sample {at[bad.axis.dim]}"
    raise UsageError(
        f"The {bad.what} is not finite.",
        got=f"{value} in {bad.name}{sample}{hint()}",
        expected="finite values",
        do="look at the inputs, and at the step for what overflows or has no derivative there "
        "(sqrt at 0, say); a sample whose state is lost goes on after a reset. The learner and "
        "the model are as before the call",
    )


def check_moved(learner: Any, before: tuple[PyTree, State], after: tuple[PyTree, State]) -> None:
    """`check_results` of parameters and of a learner's state after a sequence."""
    (params, old), (updated, new) = before, after
    was, now = (learner.cell.carry.apart(state.carry) for state in (old, new))
    made = of_state(learner.cell, learner.rule.carrier, was, now, new.traces)
    check_results([*of_parameters(params, updated), *made])


def first_input(graph: CellGraph, xs: PyTree, mask: ArrayLike | None, own: bool = True) -> str:
    """Where the inputs of a sequence that count are first not finite, as a hint; `xs` is time
    first. If they are not the cell's own inputs, what is known of them is the step.
    """
    leaves = jax.tree.leaves(xs)
    axes = [graph.batch_axis(v) for v in graph.xs] if own else [None] * len(leaves)
    for value, axis in zip(leaves, axes, strict=False):
        if is_traced(value) or is_traced(mask) or not is_differentiable(jnp.result_type(value)):
            continue
        kept = (0,) if axis is None or not axis.is_plain else (0, 1 + axis.dim)
        others = tuple(k for k in range(jnp.ndim(value)) if k not in kept)
        bad = ~np.isfinite(np.asarray(value)).all(others)
        if mask is not None:  # padding is none of it
            bad &= np.shape(mask) == bad.shape and np.asarray(mask) != 0
        for at in np.argwhere(bad)[:1]:
            return f"; the inputs are not finite at {place(*at)}"
    return ""


def _all_finite(values: list[Array]) -> bool:
    small, large = [], []
    for v in values:
        (small if v.size <= _SMALL else large).append(v)
    if not all(np.isfinite(v).all() for v in jax.device_get(small)):
        return False
    return not large or bool(jax.device_get(_each_finite(large)))


@jax.jit
def _each_finite(values: list[Array]) -> Bool[Array, ""]:
    return jnp.stack([jnp.isfinite(v).all() for v in values]).all()


def _spoilt(value: Array, before: Array | None) -> Bool[Array, "..."]:
    """Where a value is not finite that was, or where it is NaN."""
    bad = ~jnp.isfinite(value)
    return bad if before is None else bad & (jnp.isnan(value) | jnp.isfinite(before))
