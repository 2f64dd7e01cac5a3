"""Which element of an operand influences which element of a result, equation by equation.

For one operand the answer is `None` (mixing: an element may influence any element of a result) or a
list with one `Map` for each result that the operand influences. A rule is index arithmetic: data
movement is run on arrays of element numbers. What has no rule mixes.
"""

import itertools
from collections.abc import Callable

import jax
import numpy as np

from .._compat import CUSTOM_DERIVATIVE, Primitive, bind, by_primitive, is_traced
from ..jaxpr import (
    Atom,
    Const,
    Equation,
    axes_through,
    is_collective,
    is_elementwise,
    is_stop_trace,
)
from ._call_influence import of_call
from ._maps import Influence, Map, Pairs, related

Rule = Callable[[Equation], list[Influence]]


def influences(equation: Equation) -> list[Influence]:
    """The influence of each operand of `equation`."""
    if is_stop_trace(equation):
        return [None]
    if is_collective(equation):  # what other members of a mapped axis have, mixes
        return [None] * len(equation.inputs)
    if equation.primitive in CUSTOM_DERIVATIVE:
        return of_call(equation, influences)
    if (rule := _RULES.get(equation.primitive)) is not None:
        return rule(equation)
    results = range(len(equation.outputs))
    if is_elementwise(equation):
        out = equation.outputs[0]
        to_all = lambda: (np.zeros(out.size, int), np.arange(out.size))
        return [
            [Map(o) if v.shape == out.shape else Map(o, to_all) for o in results]
            for v in equation.inputs
        ]
    found = [_positional(equation, k) for k in range(len(equation.inputs))]
    return [make and [Map(o, make) for o in results] for make in found]


def _positional(equation: Equation, k: int) -> Callable[[], Pairs] | None:
    """Where every axis of the results is one that passes: each element influences the one element
    that it has a part in, be it alone or in a (weighted) sum over the axes that end.
    """
    ways, operand, outputs = axes_through(equation, k), equation.inputs[k], equation.outputs
    if ways is None or not outputs or {*ways.values()} != {*range(len(outputs[0].shape))}:
        return None

    def make() -> Pairs:
        numbers = np.arange(outputs[0].size).reshape(outputs[0].shape)
        numbers = np.transpose(numbers, [ways[d] for d in sorted(ways)])
        ended = tuple(d for d in range(len(operand.shape)) if d not in ways)
        target = np.broadcast_to(np.expand_dims(numbers, ended), operand.shape).reshape(-1)
        return np.arange(target.size), target

    return make


def _one_by_one(equation: Equation) -> list[Influence]:
    """Result k is operand k, in its own order."""
    return [[Map(o)] for o in range(len(equation.inputs))]


# Data movement: run on element numbers
# -----------------------------------------------------------------------------


def _movement(move: Callable[..., list[np.ndarray]], data: int | None = None) -> Rule:
    """The rule of a primitive whose results are rearranged elements of its first `data` operands;
    the others are indices.
    """

    def rule(equation: Equation) -> list[Influence]:
        moved, indices = equation.inputs[:data], equation.inputs[len(equation.inputs[:data]) :]
        if not all(map(_is_known, indices)):
            return [None] * len(moved) + [[] for _ in indices]
        starts = np.cumsum([0, *(v.size for v in moved)])
        numbers = [
            np.arange(low, high).reshape(v.shape)
            for v, (low, high) in zip(moved, itertools.pairwise(starts), strict=True)
        ]
        found: list[list[Map]] = [[] for _ in equation.inputs]
        for o, result in enumerate(move(equation, *numbers)):
            result = np.asarray(result).reshape(-1)
            order = np.argsort(result, kind="stable")
            bounds = np.searchsorted(result[order], starts)
            for k, (first, last) in enumerate(itertools.pairwise(bounds)):
                if first < last:
                    target = order[first:last]
                    found[k].append(related(o, result[target] - starts[k], target))
        return list(found)

    return rule


def _is_known(atom: Atom) -> bool:
    return isinstance(atom, Const) and not is_traced(atom.value)


def _broadcast_in_dim(e: Equation) -> list[Influence]:
    if e.inputs[0].size == e.outputs[0].size:  # axes of size 1 are added
        return _one_by_one(e)
    return _movement(_broadcast)(e)


def _broadcast(e: Equation, x: np.ndarray) -> list[np.ndarray]:
    shape = [1] * len(e.params["shape"])
    for axis, size in zip(e.params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return [np.broadcast_to(x.reshape(shape), e.params["shape"])]


def _slice(e: Equation, x: np.ndarray) -> list[np.ndarray]:
    strides = e.params["strides"] or (1,) * x.ndim
    return [x[tuple(map(slice, e.params["start_indices"], e.params["limit_indices"], strides))]]


def _split(e: Equation, x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(e.params["sizes"])[:-1], axis=e.params["axis"])


def _itself(e: Equation, *numbers: np.ndarray, **params: object) -> list[np.ndarray]:
    """The primitive's own movement of integers."""
    indices = [v.value for v in e.inputs[len(numbers) :] if isinstance(v, Const)]
    with jax.ensure_compile_time_eval():
        values = [*(x.astype(np.int32) for x in numbers), *indices]
        return [np.asarray(r) for r in bind(e.primitive, values, {**e.params, **params})]


def _scatter(overwrites: bool) -> Rule:
    """`x.at[constant].set(u)` or `.add(u)`: x stays where it is, u goes where the indices say."""

    def rule(equation: Equation) -> list[Influence]:
        operand, indices, _ = equation.inputs
        if not _is_known(indices):
            return [None, [], None]
        target = _targets(equation)
        source = np.flatnonzero(target >= 0)
        moved = [related(0, source, target[source])]
        if not overwrites:
            return [[Map(0)], [], moved]
        kept = np.ones(operand.size, bool)
        kept[target[source]] = False
        stays = np.flatnonzero(kept)
        return [[related(0, stays, stays)] if stays.size else [], [], moved]

    return rule


def _targets(scatter: Equation) -> np.ndarray:
    """For each update the element that it goes to, -1 for none: what the gather at the same indices
    reads.
    """
    operand, indices, updates = scatter.inputs
    assert isinstance(indices, Const)
    numbers = scatter.params["dimension_numbers"]
    gather = jax.lax.GatherDimensionNumbers(
        offset_dims=numbers.update_window_dims,
        collapsed_slice_dims=numbers.inserted_window_dims,
        start_index_map=numbers.scatter_dims_to_operand_dims,
        operand_batching_dims=numbers.operand_batching_dims,
        start_indices_batching_dims=numbers.scatter_indices_batching_dims,
    )
    one = {*numbers.inserted_window_dims, *numbers.operand_batching_dims}
    window = iter(numbers.update_window_dims)
    sizes = [1 if d in one else updates.shape[next(window)] for d in range(len(operand.shape))]
    with jax.ensure_compile_time_eval():
        elements = np.arange(operand.size, dtype=np.int32).reshape(operand.shape)
        mode = {"mode": scatter.params["mode"], "fill_value": -1}
        found = jax.lax.gather(elements, indices.value, gather, sizes, **mode)
    return np.asarray(found, np.int64).reshape(-1)


_RULES: dict[Primitive, Rule] = by_primitive(
    {
        "reshape squeeze sharding_constraint device_put optimization_barrier": _one_by_one,
        "broadcast_in_dim": _broadcast_in_dim,
        "slice": _movement(_slice),
        "rev": _movement(lambda e, x: [np.flip(x, e.params["dimensions"])]),
        "concatenate": _movement(lambda e, *x: [np.concatenate(x, e.params["dimension"])]),
        "pad": _movement(_itself),
        "gather": _movement(lambda e, x: _itself(e, x, fill_value=-1), 1),
        "dynamic_slice": _movement(_itself, 1),
        "dynamic_update_slice": _movement(_itself, 2),
        "scatter": _scatter(overwrites=True),
        "scatter_add scatter_sub scatter_mul scatter_max scatter_min": _scatter(overwrites=False),
        "split": _movement(_split),
        "tile": _movement(lambda e, x: [np.tile(x, e.params["reps"])]),
        "stack": _movement(lambda e, *x: [np.stack(x, e.params["axis"])]),
        "unstack": _movement(lambda e, x: [*np.moveaxis(x, e.params["axis"], 0)]),
    }
)
