"""Which element of an operand influences which element of a result, equation by equation.

For one operand the answer is `None` (mixing: an element may influence any element of a result) or a
list with one `Map` for each result that the operand influences. A rule is index arithmetic: data
movement is run on arrays of element numbers.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from .._compat import CUSTOM_DERIVATIVE, P, Primitive, bind, is_differentiable, sub_jaxprs
from ..jaxpr import Const, Equation, Program, Var, inline, is_elementwise, is_stop_trace
from ..sites import site_rule

_NUMBERED = 1 << 23  # elements that float32 can number


@dataclasses.dataclass(frozen=True)
class Map:
    """Operand element `source[i]` influences element `target[i]` of result `output`; both None:
    element by element.
    """

    output: int
    source: np.ndarray | None = None
    target: np.ndarray | None = None

    @property
    def in_order(self) -> bool:
        """Whether it is the identity: element by element."""
        return self.source is None

    def pairs(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        if self.source is None or self.target is None:
            return np.arange(size), np.arange(size)
        return self.source, self.target


@dataclasses.dataclass(frozen=True)
class LazyMap(Map):
    """A map whose pairs are made when they are asked for: a weight has many, and few ask."""

    make: Callable[[], tuple[np.ndarray, np.ndarray]] = lambda: (np.arange(0), np.arange(0))

    @property
    def in_order(self) -> bool:
        return False

    def pairs(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        return self.make()


Influence = list[Map] | None
Rule = Callable[[Equation], list[Influence]]


def influences(equation: Equation) -> list[Influence]:
    """The influence of each operand of `equation`."""
    if is_stop_trace(equation):
        return [None]
    if equation.primitive in CUSTOM_DERIVATIVE:
        return _of_custom_call(equation)
    if (rule := _RULES.get(equation.primitive)) is not None:
        return rule(equation)
    if is_elementwise(equation):
        shape = equation.outputs[0].shape
        maps = [Map(o) for o in range(len(equation.outputs))]
        return [
            maps if v.shape == shape else [_to_all(v, o, equation) for o in range(len(maps))]
            for v in equation.inputs
        ]
    if "axes" in equation.params and len(equation.outputs) == 1:
        return _of_reduction(equation)
    return _of_unknown(equation)


def _to_all(operand: Any, output: int, equation: Equation) -> Map:
    target = np.arange(equation.outputs[output].size)
    return Map(output, np.zeros_like(target), target)


def _of_reduction(equation: Equation) -> list[Influence]:
    """A reduction over whole axes: every element influences the one result that its group of
    elements is reduced to.
    """
    operand, axes, out = equation.inputs[0], equation.params["axes"], equation.outputs[0]
    kept = tuple(s for k, s in enumerate(operand.shape) if k not in axes)
    if len(equation.inputs) != 1 or out.shape != kept:
        return [None] * len(equation.inputs)
    numbers = np.expand_dims(np.arange(out.size).reshape(out.shape), tuple(axes))
    target = np.broadcast_to(numbers, operand.shape).reshape(-1)
    return [[Map(0, np.arange(target.size), target)]]


# Data movement: run on element numbers
# -----------------------------------------------------------------------------


def _movement(move: Callable[..., list[np.ndarray]]) -> Rule:
    """The rule of a primitive whose results are rearranged elements of its operands."""

    def rule(equation: Equation) -> list[Influence]:
        starts = np.cumsum([0, *(int(np.prod(v.shape, dtype=np.int64)) for v in equation.inputs)])
        numbers = [
            np.arange(low, high).reshape(v.shape)
            for v, low, high in zip(equation.inputs, starts, starts[1:], strict=False)
        ]
        results = [np.asarray(r).reshape(-1) for r in move(equation, *numbers)]
        found: list[Influence] = []
        for low, high in itertools.pairwise(starts):
            targets = [np.flatnonzero((r >= low) & (r < high)) for r in results]
            found.append(
                [
                    Map(o, r[t] - low, t)
                    for o, (r, t) in enumerate(zip(results, targets, strict=True))
                    if t.size
                ]
            )
        return found

    return rule


def _broadcast_in_dim(e: Equation, x: np.ndarray) -> list[np.ndarray]:
    shape = [1] * len(e.params["shape"])
    for axis, size in zip(e.params["broadcast_dimensions"], x.shape, strict=True):
        shape[axis] = size
    return [np.broadcast_to(x.reshape(shape), e.params["shape"])]


def _slice(e: Equation, x: np.ndarray) -> list[np.ndarray]:
    strides = e.params["strides"] or (1,) * x.ndim
    return [x[tuple(map(slice, e.params["start_indices"], e.params["limit_indices"], strides))]]


def _split(e: Equation, x: np.ndarray) -> list[np.ndarray]:
    return np.split(x, np.cumsum(e.params["sizes"])[:-1], axis=e.params["axis"])


def _of_scatter_add(equation: Equation) -> list[Influence]:
    """`x.at[constant].add(u)`: x stays where it is, u is added where it goes."""
    operand, indices, updates = equation.inputs
    if not isinstance(indices, Const):
        return [None, [], None]
    params, size = equation.params, equation.outputs[0].size
    options = {"mode": params["mode"], "unique_indices": params["unique_indices"]}
    with jax.ensure_compile_time_eval():
        zero = np.zeros(operand.shape, np.float32)
        add = lambda u: jax.lax.scatter_add(
            zero, indices.value, u, params["dimension_numbers"], **options
        )
        _, pull = jax.vjp(add, np.zeros(updates.shape, np.float32))
        number = np.arange(1, size + 1, dtype=np.float32).reshape(operand.shape)
        target = np.asarray(pull(number)[0]).reshape(-1).astype(np.int64) - 1
    inside = np.flatnonzero(target >= 0)
    return [[Map(0)], [], [Map(0, inside, target[inside])]]


def _of_unknown(equation: Equation) -> list[Influence]:
    """A primitive without a rule: if it only moves elements, as two runs on numbered elements show,
    where they go.
    """
    nothing: list[Influence] = [None] * len(equation.inputs)
    moved = [
        k for k, v in enumerate(equation.inputs) if v.differentiable or is_differentiable(v.dtype)
    ]
    fixed = [v for k, v in enumerate(equation.inputs) if k not in moved]
    if sub_jaxprs(equation.params) and equation.primitive is not P.scatter_p:
        return nothing
    if len(moved) > 1 and any(site_rule(equation, k) is not None for k in moved):
        return nothing  # a product with a weight
    if (
        not moved
        or not all(isinstance(v, Const) for v in fixed)
        or not all(is_differentiable(v.dtype) for v in equation.outputs)
    ):
        return nothing
    sizes = [int(np.prod(equation.inputs[k].shape, dtype=np.int64)) for k in moved]
    starts = np.cumsum([0, *sizes])
    if starts[-1] > _NUMBERED:
        return nothing
    random = np.random.default_rng(0)
    found = None
    for order in (
        np.arange(starts[-1]),
        random.permutation(starts[-1]),
        random.permutation(starts[-1]),
    ):
        values: list[Any] = [v.value if isinstance(v, Const) else None for v in equation.inputs]
        for k, low, high in zip(moved, starts, starts[1:], strict=False):
            values[k] = (
                (order[low:high] + 1)
                .astype(_exact(equation.inputs[k].dtype))
                .reshape(equation.inputs[k].shape)
            )
        try:
            with jax.ensure_compile_time_eval():
                results = [
                    np.real(np.asarray(r)).reshape(-1)
                    for r in bind(equation.primitive, values, equation.params)
                ]
        except Exception:  # it refuses the numbers' type: nothing is known of it
            return nothing
        back = np.full(starts[-1] + 2, -1)
        back[order + 1] = np.arange(starts[-1])
        inside = [(r >= 1) & (r <= starts[-1]) & (r == np.round(r)) for r in results]
        other = [~i & (r != 0) & ~np.isnan(r) for i, r in zip(inside, results, strict=True)]
        source = [
            np.where(i, back[np.where(i, r, 0).astype(int)], -1)
            for i, r in zip(inside, results, strict=True)
        ]
        if any(o.any() for o in other) or (
            found and any((a != b).any() for a, b in zip(found, source, strict=True))
        ):
            return nothing
        found = source
    assert found is not None
    answer: list[Influence] = [[] for _ in equation.inputs]
    for k, low, high in zip(moved, starts, starts[1:], strict=False):
        targets = [np.flatnonzero((f >= low) & (f < high)) for f in found]
        answer[k] = [
            Map(o, f[t] - low, t)
            for o, (f, t) in enumerate(zip(found, targets, strict=True))
            if t.size
        ]
    return answer


def _exact(dtype: Any) -> Any:
    return dtype if np.dtype(dtype) in (np.dtype(np.float32), np.dtype(np.float64)) else np.float32


def _of_dot_general(equation: Equation) -> list[Influence]:
    """A product is positional in an operand when the other one has no free axis: a weighted sum,
    each element used once.
    """
    (contract, batch), out = equation.params["dimension_numbers"], equation.outputs[0]
    found: list[Influence] = []
    for side in (0, 1):
        operand, other = equation.inputs[side], equation.inputs[1 - side]
        if len(other.shape) != len(contract[1 - side]) + len(batch[1 - side]):
            found.append(None)
            continue
        make = functools.partial(_weighted_sum, operand.shape, out, (contract[side], batch[side]))
        found.append([LazyMap(0, make=make)])
    return found


def _weighted_sum(
    shape: tuple[int, ...], out: Var, kept: tuple[Sequence[int], Sequence[int]]
) -> tuple[np.ndarray, np.ndarray]:
    """The elements of an operand that is contracted, and those of the result that they go to."""
    contract, batch = kept
    free = [d for d in range(len(shape)) if d not in contract and d not in batch]
    order = [*batch, *free]  # the axes of the result, as axes of the operand
    numbers = np.arange(out.size).reshape(out.shape)
    full = np.expand_dims(np.transpose(numbers, np.argsort(order)), tuple(contract))
    target = np.broadcast_to(full, shape).reshape(-1)
    return np.arange(target.size), target


_RULES: dict[Primitive, Rule] = {
    P.reshape_p: _movement(lambda e, x: [x.reshape(e.outputs[0].shape)]),
    P.squeeze_p: _movement(lambda e, x: [x.reshape(e.outputs[0].shape)]),
    P.transpose_p: _movement(lambda e, x: [np.transpose(x, e.params["permutation"])]),
    P.broadcast_in_dim_p: _movement(_broadcast_in_dim),
    P.slice_p: _movement(_slice),
    P.rev_p: _movement(lambda e, x: [np.flip(x, e.params["dimensions"])]),
    P.concatenate_p: _movement(lambda e, *x: [np.concatenate(x, e.params["dimension"])]),
    P.scatter_add_p: _of_scatter_add,
    P.dot_general_p: _of_dot_general,
}
if (_split_p := getattr(P, "split_p", None) or getattr(jax.lax, "split_p", None)) is not None:
    _RULES[_split_p] = _movement(_split)


# Calls with their own derivative: composed from the inner program
# -----------------------------------------------------


def _of_custom_call(equation: Equation) -> list[Influence]:
    program = inline(sub_jaxprs(equation.params)[0])
    found: list[Influence] = [[] for _ in equation.inputs]
    for o in range(len(program.outputs)):
        for k, target in enumerate(_trace_back(program, o)):
            if isinstance(target, str):
                found[k] = None
            elif target is not None and found[k] is not None:
                source = np.flatnonzero(target >= 0)
                found[k].append(Map(o, source, target[source]))  # type: ignore[union-attr]
    return found


def _trace_back(program: Program, output: int) -> list[np.ndarray | str | None]:
    """For each input: which element of the output each of its elements influences; "mixed" if more
    than one; None if none.

    Values are followed through comparisons and integers too: the call's own derivative may pass
    where the inner one does not.
    """
    reached: dict[Var, np.ndarray | str] = {}

    def put(v: Any, source: np.ndarray, target: np.ndarray) -> None:
        if isinstance(reached.get(v), str):
            return
        known = reached.setdefault(v, np.full(v.size, -1))
        assert not isinstance(known, str)
        merged = known.copy()
        merged[source] = target
        conflict = (merged[source] != target).any() or ((known >= 0) & (known != merged)).any()
        reached[v] = "mixed" if conflict else merged

    out = program.outputs[output]
    if isinstance(out, Var):
        put(out, np.arange(out.size), np.arange(out.size))
    for equation in reversed(program.equations):
        arrived = [reached.get(v) for v in equation.outputs]
        if all(a is None for a in arrived):
            continue
        for v, influence in zip(equation.inputs, influences(equation), strict=True):
            if not isinstance(v, Var):
                continue
            if influence is None:
                reached[v] = "mixed"
                continue
            for m in influence:
                labels = arrived[m.output]
                if isinstance(labels, str):
                    reached[v] = "mixed"
                elif labels is not None:
                    source, target = m.pairs(v.size)
                    valid = labels[target] >= 0
                    put(v, source[valid], labels[target][valid])
    return [reached.get(v) for v in program.inputs]
