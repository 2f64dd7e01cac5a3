"""How an equation carries the batch axis from its operands to its results, by primitive.

A rule answers with the axes of the results and the equation's parameters as one sample has them; or
with None where samples meet, or where nothing is known of the primitive.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from .._compat import CUSTOM_DERIVATIVE, P, Primitive, sub_jaxprs
from ..jaxpr import Const, Equation, Program, evaluate, inline, is_elementwise, reader
from ._batch_axis import BatchAxis

Operands = Sequence[BatchAxis | None]


@dataclasses.dataclass(frozen=True)
class Moved:
    """Axes of the results; parameters of one sample's equation; axes along which shared operands
    are read sample by sample.
    """

    outs: tuple[BatchAxis | None, ...]
    params: dict[str, Any]
    aligned: Mapping[int, BatchAxis] = dataclasses.field(default_factory=dict)


def transfer(equation: Equation, operands: Operands) -> Moved | None:
    """How `equation` carries the axes of its operands on; None where it does not."""
    if equation.primitive in CUSTOM_DERIVATIVE:
        return _custom_call(equation, operands)
    if (rule := _RULES.get(equation.primitive)) is not None:
        return rule(equation, operands)
    if is_elementwise(equation):
        return _alike(equation, operands)
    if "axes" in equation.params:
        return _reduction(equation, operands)
    return None


def _common(operands: Operands) -> BatchAxis | None:
    """The axis that all batched operands share."""
    found = {a for a in operands if a is not None}
    return found.pop() if len(found) == 1 else None


def _alike(equation: Equation, operands: Operands) -> Moved | None:
    """Operands of one shape, whose axes stay where they are, in every result."""
    axis = _common(operands)
    if axis is None:
        return None
    sizes = [v.shape[axis.dim] if len(v.shape) > axis.dim else None for v in equation.outputs]
    full = axis.outer * axis.size * axis.inner
    if any(size != full for size in sizes):
        return None
    shape = equation.outputs[0].shape
    aligned = {
        k: axis
        for k, (v, a) in enumerate(zip(equation.inputs, operands, strict=True))
        if a is None and len(v.shape) == len(shape) and v.shape[axis.dim] == full
    }
    return Moved((axis,) * len(equation.outputs), equation.params, aligned)


def _reduction(equation: Equation, operands: Operands) -> Moved | None:
    axis, axes = operands[0], equation.params["axes"]
    if axis is None or axis.dim in axes or any(operands[1:]):
        return None
    kept = axis.at(axis.dim - sum(k < axis.dim for k in axes))
    return Moved((kept,) * len(equation.outputs), equation.params)


def _along(name: str) -> Callable[[Equation, Operands], Moved | None]:
    """An operation along the axes that a parameter names: the batch must not be one of them."""

    def rule(equation: Equation, operands: Operands) -> Moved | None:
        axis, used = _common(operands), equation.params[name]
        used = (used,) if isinstance(used, int) else used
        return None if axis is None or axis.dim in used else _alike(equation, operands)

    return rule


def _trailing(count: Callable[[Equation], int]) -> Callable[[Equation, Operands], Moved | None]:
    """An operation on the last axes of its operands (a factorisation, a transform)."""

    def rule(equation: Equation, operands: Operands) -> Moved | None:
        axis = _common(operands)
        if axis is None:
            return None
        batched = [v for v, a in zip(equation.inputs, operands, strict=True) if a is not None]
        if any(axis.dim >= len(v.shape) - count(equation) for v in batched):
            return None
        return _alike(equation, operands)

    return rule


def _solve(equation: Equation, operands: Operands) -> Moved | None:
    """Systems whose right-hand sides are apart: samples may be right-hand sides of one system."""
    axis, rank = operands[-1], len(equation.outputs[0].shape)
    free = rank - 1 if equation.params.get("left_side", True) else rank - 2
    if axis is not None and axis.dim == free and not any(operands[:-1]):
        return Moved((axis,), equation.params)
    return _trailing(lambda e: 2)(equation, operands)


def _reshape(equation: Equation, operands: Operands) -> Moved | None:
    [axis], old, new = operands[:1], equation.inputs[0].shape, equation.outputs[0].shape
    if axis is None or equation.params.get("dimensions") is not None:
        return None
    before = math.prod(old[: axis.dim]) * axis.outer  # elements in front of the samples
    passed = 1
    for dim, size in enumerate(new):
        if before % passed == 0 and size % axis.size == 0:
            outer = before // passed
            if size % (outer * axis.size) == 0:
                inner = size // (outer * axis.size)
                moved = BatchAxis(dim, axis.size, outer, inner)
                sizes = moved.sample_shape(tuple(new))
                return Moved((moved,), {**equation.params, "new_sizes": sizes})
        passed *= size
        if passed > before:
            return None
    return None


def _broadcast(equation: Equation, operands: Operands) -> Moved | None:
    axis = operands[0]
    if axis is None:
        return None
    moved, shape = (
        axis.at(equation.params["broadcast_dimensions"][axis.dim]),
        equation.params["shape"],
    )
    if shape[moved.dim] != equation.inputs[0].shape[axis.dim]:
        return None
    return Moved((moved,), {**equation.params, "shape": moved.sample_shape(tuple(shape))})


def _squeeze(equation: Equation, operands: Operands) -> Moved | None:
    axis, dims = operands[0], equation.params["dimensions"]
    if axis is None or axis.dim in dims:
        return None
    return Moved((axis.at(axis.dim - sum(k < axis.dim for k in dims)),), equation.params)


def _transpose(equation: Equation, operands: Operands) -> Moved | None:
    axis, order = operands[0], equation.params["permutation"]
    return (
        None if axis is None else Moved((axis.at(tuple(order).index(axis.dim)),), equation.params)
    )


def _slice(equation: Equation, operands: Operands) -> Moved | None:
    axis, params = operands[0], equation.params
    if axis is None or equation.outputs[0].shape[axis.dim] != equation.inputs[0].shape[axis.dim]:
        return None
    limits = axis.sample_shape(tuple(params["limit_indices"]))
    return Moved((axis,), {**params, "limit_indices": limits})


def _pad(equation: Equation, operands: Operands) -> Moved | None:
    axis = operands[0]
    if (
        axis is None
        or any(operands[1:])
        or tuple(equation.params["padding_config"][axis.dim]) != (0, 0, 0)
    ):
        return None
    return Moved((axis,), equation.params)


def _concatenate(equation: Equation, operands: Operands) -> Moved | None:
    axis = _common(operands)
    if axis is None or axis.dim == equation.params["dimension"]:
        return None
    aligned = {k: axis for k, a in enumerate(operands) if a is None}
    return Moved((axis,), equation.params, aligned)


def _dynamic_slice(equation: Equation, operands: Operands) -> Moved | None:
    axis, sizes = operands[0], equation.params["slice_sizes"]
    if axis is None or any(operands[1:]) or sizes[axis.dim] != equation.inputs[0].shape[axis.dim]:
        return None
    return Moved((axis,), {**equation.params, "slice_sizes": axis.sample_shape(tuple(sizes))})


def _dynamic_update_slice(equation: Equation, operands: Operands) -> Moved | None:
    axis, (operand, update) = _common(operands), equation.inputs[:2]
    if axis is None or any(operands[2:]) or operand.shape[axis.dim] != update.shape[axis.dim]:
        return None
    aligned = {k: axis for k in (0, 1) if operands[k] is None}
    return Moved((axis,), equation.params, aligned)


def _dot_general(equation: Equation, operands: Operands) -> Moved | None:
    contract, batch = equation.params["dimension_numbers"]
    sides = [k for k in (0, 1) if operands[k] is not None]
    dims = [operands[k].dim for k in sides]  # type: ignore[union-attr]
    if any(d in contract[k] for k, d in zip(sides, dims, strict=True)):
        return None
    side, axis = sides[0], operands[sides[0]]
    assert axis is not None
    if axis.dim in batch[side]:
        number = tuple(batch[side]).index(axis.dim)
        other = axis.at(batch[1 - side][number])
        if operands[1 - side] not in (None, other):
            return None
        aligned = {} if operands[1 - side] else {1 - side: other}
        return Moved((axis.at(number),), equation.params, aligned)
    if len(sides) == 2:
        return None
    free = [
        d
        for d in range(len(equation.inputs[side].shape))
        if d not in (*contract[side], *batch[side])
    ]
    start = len(batch[0])
    if side == 1:
        start += len(equation.inputs[0].shape) - len(contract[0]) - len(batch[0])
    return Moved((axis.at(start + free.index(axis.dim)),), equation.params)


def _convolution(equation: Equation, operands: Operands) -> Moved | None:
    axis, numbers = operands[0], equation.params["dimension_numbers"]
    if axis is None or operands[1] is not None or axis.dim != numbers.lhs_spec[0]:
        return None
    if equation.params["batch_group_count"] != 1:
        return None
    return Moved((axis.at(numbers.out_spec[0]),), equation.params)


def _window(equation: Equation, operands: Operands) -> Moved | None:
    """A reduction over windows: the batch must be no part of them."""
    axis, params = _common(operands), equation.params
    if axis is None:
        return None
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    plain = all(params[n][axis.dim] == 1 for n in names) and tuple(params["padding"][axis.dim]) == (
        0,
        0,
    )
    return _alike(equation, operands) if plain else None


def _gather(equation: Equation, operands: Operands) -> Moved | None:
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    (axis, index), (operand, indices) = operands, equation.inputs
    ndim = len(equation.outputs[0].shape)
    places = [d for d in range(ndim) if d not in numbers.offset_dims]  # where the indices' axes go
    if index is not None and index.dim == len(indices.shape) - 1:
        return None
    out = None if index is None else index.at(places[index.dim])
    params, aligned = equation.params, {}
    if axis is not None and axis.dim not in numbers.operand_batching_dims:
        whole = (
            sizes[axis.dim] == operand.shape[axis.dim] and axis.dim not in numbers.start_index_map
        )
        if out is not None or not whole or axis.dim in numbers.collapsed_slice_dims:
            return None
        dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        kept = [d for d in range(len(operand.shape)) if d not in dropped]
        out = axis.at(numbers.offset_dims[kept.index(axis.dim)])
        params = {**params, "slice_sizes": axis.sample_shape(tuple(sizes))}
    pairs = dict(
        zip(numbers.start_indices_batching_dims, numbers.operand_batching_dims, strict=True)
    )
    if index is not None and index.dim in pairs:
        own = index.at(pairs[index.dim])
        if axis not in (None, own):
            return None
        aligned = {} if axis else {0: own}
    elif axis is not None and axis.dim in numbers.operand_batching_dims:
        [at] = [d for d, o in pairs.items() if o == axis.dim]
        if index is not None:
            return None
        aligned, out = {1: axis.at(at)}, axis.at(places[at])
    elif index is not None and axis is not None:
        return None
    return Moved((out,), params, aligned)


def _scatter(equation: Equation, operands: Operands) -> Moved | None:
    """Updates written into whole rows of the batch, at indices that all samples share."""
    numbers, operand = equation.params["dimension_numbers"], equation.inputs[0]
    dropped = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = [d for d in range(len(operand.shape)) if d not in dropped]
    axis, update = operands[0], operands[2]
    if operands[1] is not None or (axis is None and update is None):
        return None
    if axis is None and update is not None:
        if update.dim not in numbers.update_window_dims:
            return None
        axis = update.at(kept[numbers.update_window_dims.index(update.dim)])
    assert axis is not None
    if axis.dim not in kept or axis.dim in numbers.scatter_dims_to_operand_dims:
        return None
    own = axis.at(numbers.update_window_dims[kept.index(axis.dim)])
    if update not in (None, own) or equation.inputs[2].shape[own.dim] != operand.shape[axis.dim]:
        return None
    aligned = {k: a for k, a in ((0, axis), (2, own)) if operands[k] is None}
    return Moved((axis,), equation.params, aligned)


@dataclasses.dataclass(frozen=True)
class _Inside:
    """What becomes of a program inside an equation; its inputs that are read sample by sample count
    as batched.
    """

    program: Program
    axes: dict[Any, BatchAxis]
    moved: dict[Equation, Moved]

    @property
    def outs(self) -> tuple[BatchAxis | None, ...]:
        return tuple(self.axes.get(v) for v in self.program.outputs)

    def aligned(self, operands: Operands) -> dict[int, BatchAxis]:
        inputs = enumerate(zip(self.program.inputs, operands, strict=True))
        return {k: self.axes[v] for k, (v, a) in inputs if a is None and v in self.axes}


def _inside(program: Program, operands: Operands) -> _Inside | None:
    known: dict[Any, BatchAxis] = {v: a for v, a in zip(program.inputs, operands, strict=True) if a}
    while True:
        axes, moved, read = dict(known), {}, {}
        for e in program.equations:
            inner = [axes.get(v) for v in e.inputs]
            if not any(inner):
                continue
            if (found := transfer(e, inner)) is None:
                return None
            axes.update((v, a) for v, a in zip(e.outputs, found.outs, strict=True) if a)
            read.update((e.inputs[k], a) for k, a in found.aligned.items())
            moved[e] = found
        new = {v: read[v] for v in program.inputs if v in read and v not in known}
        if not new:
            return _Inside(program, axes, moved)
        known |= new


def _custom_call(equation: Equation, operands: Operands) -> Moved | None:
    """A call with a derivative of its own: its inner program, followed through."""
    closed = sub_jaxprs(equation.params)[0]
    inside = _inside(inline(closed), operands)
    if inside is None:
        return None
    name = next(
        n for n, v in equation.params.items() if closed.jaxpr in (v, getattr(v, "jaxpr", None))
    )
    params = {**equation.params, name: _of_one_sample(inside)}
    return Moved(inside.outs, params, inside.aligned(operands))


def _linear_solve(equation: Equation, operands: Operands) -> Moved | None:
    """A system for each sample: its solver, followed through."""
    lengths, solver = equation.params["const_lengths"], equation.params["jaxprs"].solve
    start = lengths.matvec + lengths.vecmat
    first, unknown = operands[start : start + lengths.solve], operands[sum(lengths) :]
    inside = _inside(inline(solver), [*first, *unknown])
    return None if inside is None else Moved(inside.outs, equation.params)


def _of_one_sample(inside: _Inside) -> Any:
    """The inner program at the shapes of one sample."""
    program, axes = inside.program, inside.axes

    def run(*values: Any) -> list[Any]:
        env = dict(zip(program.inputs, values, strict=True))
        for e in program.equations:
            found = inside.moved.get(e) or Moved((), e.params)
            inputs = [
                _first(v, found.aligned[k]) if k in found.aligned and isinstance(v, Const) else v
                for k, v in enumerate(e.inputs)
            ]
            evaluate([Equation(e.primitive, inputs, e.outputs, found.params)], env)
        return [reader(env)(v) for v in program.outputs]

    shapes = [axes[v].sample_shape(v.shape) if v in axes else v.shape for v in program.inputs]
    avals = [jax.ShapeDtypeStruct(s, v.dtype) for s, v in zip(shapes, program.inputs, strict=True)]
    return jax.make_jaxpr(run)(*avals)


def _first(constant: Const, axis: BatchAxis) -> Const:
    """The part of a constant that the first sample reads."""
    return Const(axis.apart(constant.value)[0])


Rule = Callable[[Equation, Operands], Moved | None]


def _of(names: str, rule: Rule) -> dict[Primitive, Rule]:
    found = (getattr(P, n + "_p", None) or getattr(jax.lax, n + "_p", None) for n in names.split())
    return {p: rule for p in found if p is not None}


_RULES: dict[Primitive, Rule] = {
    **_of("reshape", _reshape),
    **_of("broadcast_in_dim", _broadcast),
    **_of("squeeze", _squeeze),
    **_of("transpose", _transpose),
    **_of("slice", _slice),
    **_of("pad", _pad),
    **_of("concatenate", _concatenate),
    **_of("dynamic_slice", _dynamic_slice),
    **_of("dynamic_update_slice", _dynamic_update_slice),
    **_of("dot_general", _dot_general),
    **_of("conv_general_dilated", _convolution),
    **_of("gather", _gather),
    **_of("scatter scatter_add scatter_mul scatter_sub scatter_min scatter_max", _scatter),
    **_of("reduce_window reduce_window_sum reduce_window_max reduce_window_min", _window),
    **_of("rev", _along("dimensions")),
    **_of("sort", _along("dimension")),
    **_of("split", _along("axis")),
    **_of("cumsum cumprod cummax cummin cumlogsumexp", _along("axis")),
    **_of("fft", _trailing(lambda e: len(e.params["fft_lengths"]))),
    **_of("linear_solve custom_linear_solve", _linear_solve),
    **_of("top_k", _trailing(lambda e: 1)),
    **_of("cholesky eigh lu qr svd", _trailing(lambda e: 2)),
    **_of("triangular_solve tridiagonal_solve", _solve),
}
