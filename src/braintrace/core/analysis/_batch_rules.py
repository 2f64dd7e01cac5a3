"""How an equation carries the batch axis from its operands to its results, by primitive.

A rule answers with the axes of the results and the equation's parameters as one sample has them; or
with None where samples meet, or where nothing is known of the primitive.
"""

import math
from collections.abc import Callable

from .._compat import Primitive, by_primitive
from ..jaxpr import Equation, is_elementwise
from ..sites import site_rule
from ._batch_axis import BatchAxis, Moved, Operands
from ._batch_calls import custom_call, linear_solve

Rule = Callable[[Equation, Operands], Moved | None]


def transfer(equation: Equation, operands: Operands) -> Moved | None:
    """How `equation` carries the axes of its operands on; None where it does not."""
    if (rule := _RULES.get(equation.primitive)) is not None:
        return rule(equation, operands)
    if is_elementwise(equation):
        return _alike(equation, operands)
    if "axes" in equation.params:
        return _reduction(equation, operands)
    return _weight_operation(equation, operands)


def _weight_operation(equation: Equation, operands: Operands) -> Moved | None:
    """An operation that a site rule knows (a sparse product, say): the rule says which axis of the
    result runs along the one of its data.
    """
    batched = [k for k, axis in enumerate(operands) if axis is not None]
    if len(batched) != 1 or len(equation.outputs) != 1:
        return None
    [axis], rank = [operands[k] for k in batched], len(equation.outputs[0].shape)
    for weight in range(len(operands)):
        rule = None if weight in batched else site_rule(equation, weight)
        if rule is None or axis is None or list(rule.data) != batched:
            continue
        along = [d for d in range(rank) if rule.lane_axis(d) == axis.dim]
        if len(along) == 1:
            return Moved((axis.at(along[0]),), equation.params)
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


def _along(name: str) -> Rule:
    """An operation along the axes that a parameter names: the batch must not be one of them."""

    def rule(equation: Equation, operands: Operands) -> Moved | None:
        axis, used = _common(operands), equation.params[name]
        used = (used,) if isinstance(used, int) else used
        return None if axis is None or axis.dim in used else _alike(equation, operands)

    return rule


def _trailing(count: Callable[[Equation], int]) -> Rule:
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
    moved = axis.at(equation.params["broadcast_dimensions"][axis.dim])
    shape = equation.params["shape"]
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
    if axis is None:
        return None
    return Moved((axis.at(tuple(order).index(axis.dim)),), equation.params)


def _slice(equation: Equation, operands: Operands) -> Moved | None:
    axis, params = operands[0], equation.params
    if axis is None or equation.outputs[0].shape[axis.dim] != equation.inputs[0].shape[axis.dim]:
        return None
    limits = axis.sample_shape(tuple(params["limit_indices"]))
    return Moved((axis,), {**params, "limit_indices": limits})


def _pad(equation: Equation, operands: Operands) -> Moved | None:
    axis, config = operands[0], equation.params["padding_config"]
    if axis is None or any(operands[1:]) or tuple(config[axis.dim]) != (0, 0, 0):
        return None
    return Moved((axis,), equation.params)


def _concatenate(equation: Equation, operands: Operands) -> Moved | None:
    axis = _common(operands)
    if axis is None or axis.dim == equation.params["dimension"]:
        return None
    return Moved((axis,), equation.params, _shared(operands, axis))


def _shared(operands: Operands, axis: BatchAxis) -> dict[int, BatchAxis]:
    """Shared operands are read along the axis."""
    return {k: axis for k, a in enumerate(operands) if a is None}


def _stack(equation: Equation, operands: Operands) -> Moved | None:
    axis, new = _common(operands), equation.params["axis"]
    if axis is None:
        return None
    return Moved((axis.at(axis.dim + (axis.dim >= new)),), equation.params, _shared(operands, axis))


def _unstack(equation: Equation, operands: Operands) -> Moved | None:
    axis, gone = operands[0], equation.params["axis"]
    if axis is None or axis.dim == gone:
        return None
    return Moved((axis.at(axis.dim - (axis.dim > gone)),) * len(equation.outputs), equation.params)


def _tile(equation: Equation, operands: Operands) -> Moved | None:
    axis, repeats = operands[0], equation.params["reps"]
    return None if axis is None or repeats[axis.dim] != 1 else Moved((axis,), equation.params)


def _dynamic_slice(equation: Equation, operands: Operands) -> Moved | None:
    axis, sizes = operands[0], equation.params["slice_sizes"]
    if axis is None or any(operands[1:]) or sizes[axis.dim] != equation.inputs[0].shape[axis.dim]:
        return None
    return Moved((axis,), {**equation.params, "slice_sizes": axis.sample_shape(tuple(sizes))})


def _dynamic_update_slice(equation: Equation, operands: Operands) -> Moved | None:
    axis, (operand, update) = _common(operands), equation.inputs[:2]
    if axis is None or any(operands[2:]) or operand.shape[axis.dim] != update.shape[axis.dim]:
        return None
    return Moved((axis,), equation.params, _shared(operands[:2], axis))


def _dot_general(equation: Equation, operands: Operands) -> Moved | None:
    contract, batch = equation.params["dimension_numbers"]
    sides = [(k, axis) for k, axis in enumerate(operands) if axis is not None]
    if any(axis.dim in contract[k] for k, axis in sides):
        return None
    side, axis = sides[0]
    if axis.dim in batch[side]:
        number = tuple(batch[side]).index(axis.dim)
        other = axis.at(batch[1 - side][number])
        if operands[1 - side] not in (None, other):
            return None
        aligned = {} if operands[1 - side] else {1 - side: other}
        return Moved((axis.at(number),), equation.params, aligned)
    if len(sides) == 2:
        return None
    rank, used = len(equation.inputs[side].shape), (*contract[side], *batch[side])
    free = [d for d in range(rank) if d not in used]
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
    plain = all(params[n][axis.dim] == 1 for n in names) and not any(params["padding"][axis.dim])
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
        chosen = (*numbers.start_index_map, *numbers.collapsed_slice_dims)
        whole = sizes[axis.dim] == operand.shape[axis.dim] and axis.dim not in chosen
        if out is not None or not whole:
            return None
        dropped = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
        kept = [d for d in range(len(operand.shape)) if d not in dropped]
        out = axis.at(numbers.offset_dims[kept.index(axis.dim)])
        params = {**params, "slice_sizes": axis.sample_shape(tuple(sizes))}
    batching = numbers.start_indices_batching_dims, numbers.operand_batching_dims
    pairs = dict(zip(*batching, strict=True))
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


_RULES: dict[Primitive, Rule] = by_primitive(
    {
        "reshape": _reshape,
        "broadcast_in_dim": _broadcast,
        "squeeze": _squeeze,
        "transpose": _transpose,
        "slice": _slice,
        "pad": _pad,
        "concatenate": _concatenate,
        "stack": _stack,
        "unstack": _unstack,
        "tile": _tile,
        "dynamic_slice": _dynamic_slice,
        "dynamic_update_slice": _dynamic_update_slice,
        "dot_general": _dot_general,
        "conv_general_dilated": _convolution,
        "gather": _gather,
        "scatter scatter_add scatter_mul scatter_sub scatter_min scatter_max": _scatter,
        "reduce_window reduce_window_sum reduce_window_max reduce_window_min": _window,
        "rev": _along("dimensions"),
        "sort": _along("dimension"),
        "split": _along("axis"),
        "cumsum cumprod cummax cummin cumlogsumexp": _along("axis"),
        "fft": _trailing(lambda e: len(e.params["fft_lengths"])),
        "linear_solve custom_linear_solve": lambda e, axes: linear_solve(e, axes, transfer),
        "custom_jvp_call custom_vjp_call": lambda e, axes: custom_call(e, axes, transfer),
        "top_k": _trailing(lambda e: 1),
        "cholesky eigh lu qr svd": _trailing(lambda e: 2),
        "triangular_solve tridiagonal_solve": _solve,
    }
)
