"""Which element of an operand influences which element of a result, equation by equation.

For one operand the answer is `None` (mixing: an element may influence any element of a result) or a
list with one `Map` for each result that the operand influences. A rule is index arithmetic: data
movement is run on arrays of element numbers. What has no rule mixes.
"""

import functools
import itertools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from .._compat import CUSTOM_DERIVATIVE, Primitive, bind, by_primitive, is_traced
from ..jaxpr import Atom, Const, Equation, Var, is_elementwise, is_stop_trace
from ._call_influence import of_call
from ._maps import Influence, LazyMap, Map

Rule = Callable[[Equation], list[Influence]]


def influences(equation: Equation) -> list[Influence]:
    """The influence of each operand of `equation`."""
    if is_stop_trace(equation):
        return [None]
    if equation.primitive in CUSTOM_DERIVATIVE:
        return of_call(equation, influences)
    if (rule := _RULES.get(equation.primitive)) is not None:
        return rule(equation)
    if is_elementwise(equation):
        shape = equation.outputs[0].shape
        results = range(len(equation.outputs))
        return [
            [Map(o) if v.shape == shape else _to_all(equation.outputs[o], o) for o in results]
            for v in equation.inputs
        ]
    if "axes" in equation.params and len(equation.inputs) == len(equation.outputs) == 1:
        return _of_reduction(equation)
    return [None] * len(equation.inputs)


def _to_all(result: Var, output: int) -> Map:
    def make() -> Map:
        target = np.arange(result.size)
        return Map(output, np.zeros_like(target), target)

    return LazyMap(output, make=make)


def _one_by_one(equation: Equation) -> list[Influence]:
    """Result k is operand k, in its own order."""
    return [[Map(o)] for o in range(len(equation.inputs))]


def _of_reduction(equation: Equation) -> list[Influence]:
    """A reduction over whole axes: every element influences the one result that its group of
    elements is reduced to.
    """
    operand, axes, out = equation.inputs[0], equation.params["axes"], equation.outputs[0]
    if out.shape != tuple(s for k, s in enumerate(operand.shape) if k not in axes):
        return [None]
    return [[_summed(operand, out, range(len(out.shape)), tuple(axes))]]


def _summed(
    operand: Atom, out: Var, order: Sequence[int] | np.ndarray, axes: tuple[int, ...]
) -> Map:
    """Operand elements are summed over `axes`; the other axes are those of `out`, in `order`."""
    numbers = np.transpose(np.arange(out.size).reshape(out.shape), order)
    target = np.broadcast_to(np.expand_dims(numbers, axes), operand.shape).reshape(-1)
    return Map(0, np.arange(target.size), target)


def _of_dot_general(equation: Equation) -> list[Influence]:
    """A product is positional in an operand when the other one has no free axis: a weighted sum,
    each element used once.
    """
    contract, batch = equation.params["dimension_numbers"]
    found: list[Influence] = []
    for side in (0, 1):
        operand, other = equation.inputs[side], equation.inputs[1 - side]
        if len(other.shape) != len(contract[1 - side]) + len(batch[1 - side]):
            found.append(None)
            continue
        axes, first = tuple(contract[side]), tuple(batch[side])
        free = [d for d in range(len(operand.shape)) if d not in (*axes, *first)]
        order = np.argsort([*first, *free])  # the axes of the result, as they lie in the operand
        make = functools.partial(_summed, operand, equation.outputs[0], order, axes)
        found.append([LazyMap(0, make=make)])
    return found


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
                    found[k].append(Map(o, result[target] - starts[k], target))
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
        moved = [Map(0, source, target[source])]
        if not overwrites:
            return [[Map(0)], [], moved]
        kept = np.ones(operand.size, bool)
        kept[target[source]] = False
        stays = np.flatnonzero(kept)
        return [[Map(0, stays, stays)] if stays.size else [], [], moved]

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
        "transpose": _movement(lambda e, x: [np.transpose(x, e.params["permutation"])]),
        "slice": _movement(_slice),
        "rev": _movement(lambda e, x: [np.flip(x, e.params["dimensions"])]),
        "concatenate": _movement(lambda e, *x: [np.concatenate(x, e.params["dimension"])]),
        "pad": _movement(_itself),
        "gather": _movement(lambda e, x: _itself(e, x, fill_value=-1), 1),
        "dynamic_slice": _movement(_itself, 1),
        "dynamic_update_slice": _movement(_itself, 2),
        "scatter": _scatter(overwrites=True),
        "scatter_add scatter_sub scatter_mul scatter_max scatter_min": _scatter(overwrites=False),
        "dot_general": _of_dot_general,
        "split": _movement(_split),
        "tile": _movement(lambda e, x: [np.tile(x, e.params["reps"])]),
        "stack": _movement(lambda e, *x: [np.stack(x, e.params["axis"])]),
        "unstack": _movement(lambda e, x: [*np.moveaxis(x, e.params["axis"], 0)]),
    }
)
