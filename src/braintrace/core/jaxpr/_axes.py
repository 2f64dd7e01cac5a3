"""Which axes of an operand pass through an equation as they are, by primitive.

The elements along such an axis stay apart: those of the results are made from those at the same
place along it, and by the same function at every place.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from numbers import Integral

from .._compat import Primitive, by_primitive
from ._elementwise import is_elementwise
from ._program import Equation

Ways = Iterable[tuple[int, int]]  # an axis of the operand, and that of the results


def axes_through(equation: Equation, k: int) -> dict[int, int] | None:
    """For the axes of operand k that pass: the axis of the results that each becomes. None: nothing
    is known of the primitive.
    """
    if (rule := _RULES.get(equation.primitive)) is None:
        rule = _same if is_elementwise(equation) else _reduction
        if rule is _reduction and "axes" not in equation.params:
            return None
    shape, shapes = equation.inputs[k].shape, [v.shape for v in equation.outputs]
    ways = rule(equation, k)
    return {a: b for a, b in ways if all(b < len(s) and s[b] == shape[a] for s in shapes)}


def is_collective(equation: Equation) -> bool:
    """Whether it combines values along a mapped axis, which the program of one member does not
    show: a `psum` inside `vmap` or `shard_map`.
    """
    return any(not isinstance(axis, Integral) for axis in equation.params.get("axes", ()))


def _same(e: Equation, k: int) -> Ways:
    """Every axis stays where it is; of those that `axes_through` finds cut or extended, none."""
    return ((d, d) for d in range(len(e.inputs[k].shape)))


def _first(rule: Callable[[Equation], Ways]) -> Callable[[Equation, int], Ways]:
    """A rule of the first operand; the others are indices, or the start of a reduction."""
    return lambda e, k: rule(e) if k == 0 else ()


def _kept(e: Equation, gone: Collection[int]) -> Ways:
    """The axes of the first operand that are left without those that are gone."""
    return ((a, b) for b, a in enumerate(_others(e.inputs[0].shape, gone)))


def _reduction(e: Equation, k: int) -> Ways:
    return _kept(e, e.params["axes"]) if k == 0 else ()


def _others(shape: Sequence[int], used: Collection[int]) -> list[int]:
    return [d for d in range(len(shape)) if d not in used]


def _along(name: str) -> Callable[[Equation, int], Ways]:
    """An operation along the axes that a parameter names."""

    def rule(e: Equation, k: int) -> Ways:
        used = e.params[name]
        return (w for w in _same(e, k) if w[0] not in ((used,) if isinstance(used, int) else used))

    return rule


def _leading(count: Callable[[Equation], int]) -> Callable[[Equation, int], Ways]:
    """An operation on the last axes of its operands (a factorisation, a transform)."""
    return lambda e, k: ((d, d) for d in range(len(e.inputs[k].shape) - count(e)))


def _solve(e: Equation, k: int) -> Ways:
    """The right-hand sides of one system are apart, too."""
    rank = len(e.outputs[0].shape)
    free = rank - 1 if e.params.get("left_side", True) else rank - 2
    last = k == len(e.inputs) - 1
    return [*_leading(lambda e: 2)(e, k), *([(free, free)] if last else [])]


def _pad(e: Equation) -> Ways:
    config = e.params["padding_config"]
    return ((d, d) for d, sizes in enumerate(config) if tuple(sizes) == (0, 0, 0))


def _stack(e: Equation, k: int) -> Ways:
    return ((a, a + (a >= e.params["axis"])) for a, _ in _same(e, k))


def _dynamic_update_slice(e: Equation, k: int) -> Ways:
    whole, part = e.inputs[0].shape, e.inputs[1].shape
    return ((d, d) for d in range(len(whole)) if k < 2 and whole[d] == part[d])


def _dot_general(e: Equation, k: int) -> Ways:
    contract, batch = e.params["dimension_numbers"]
    free = [
        _others(v.shape, (*contract[side], *batch[side])) for side, v in enumerate(e.inputs[:2])
    ]
    before = len(batch[0]) + k * len(free[0])
    joint = ((a, b) for b, a in enumerate(batch[k]))
    return [*joint, *((a, before + b) for b, a in enumerate(free[k]))]


def _convolution(e: Equation) -> Ways:
    numbers = e.params["dimension_numbers"]
    alone = e.params["batch_group_count"] == 1
    return [(numbers.lhs_spec[0], numbers.out_spec[0])] if alone else []


def _window(e: Equation, k: int) -> Ways:
    """A reduction over windows: the axis must be no part of them."""
    names = ("window_dimensions", "window_strides", "base_dilation", "window_dilation")
    ones = [all(e.params[n][d] == 1 for n in names) for d in range(len(e.outputs[0].shape))]
    return (w for w in _same(e, k) if ones[w[0]] and not any(e.params["padding"][w[0]]))


def _gather(e: Equation, k: int) -> Ways:
    numbers, sizes = e.params["dimension_numbers"], e.params["slice_sizes"]
    places = _others(e.outputs[0].shape, numbers.offset_dims)  # where the indices' axes go
    if k == 1:
        return enumerate(places)
    own, shared = numbers.operand_batching_dims, numbers.start_indices_batching_dims
    kept = _others(e.inputs[0].shape, (*numbers.collapsed_slice_dims, *own))
    chosen = [a for a in kept if a in numbers.start_index_map or sizes[a] != e.inputs[0].shape[a]]
    moved = zip(kept, numbers.offset_dims, strict=True)
    return [
        *((a, b) for a, b in moved if a not in chosen),
        *((a, places[d]) for a, d in zip(own, shared, strict=True)),
    ]


def _scatter(e: Equation, k: int) -> Ways:
    """Updates written into whole rows, at the same indices in each."""
    numbers = e.params["dimension_numbers"]
    dropped = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = _others(e.inputs[0].shape, dropped)
    return [
        (a if k == 0 else own, a)
        for a, own in zip(kept, numbers.update_window_dims, strict=True)
        if k != 1
        and a not in numbers.scatter_dims_to_operand_dims
        and e.inputs[0].shape[a] == e.inputs[2].shape[own]
    ]


_RULES: dict[Primitive, Callable[[Equation, int], Ways]] = by_primitive(
    {
        "slice split concatenate tile": _same,
        "dynamic_slice": _first(lambda e: _same(e, 0)),
        "dynamic_update_slice": _dynamic_update_slice,
        "broadcast_in_dim": _first(lambda e: enumerate(e.params["broadcast_dimensions"])),
        "squeeze": _first(lambda e: _kept(e, e.params["dimensions"])),
        "unstack": _first(lambda e: _kept(e, (e.params["axis"],))),
        "stack": _stack,
        "transpose": _first(lambda e: ((a, b) for b, a in enumerate(e.params["permutation"]))),
        "pad": _first(_pad),
        "dot_general": _dot_general,
        "conv_general_dilated": _first(_convolution),
        "gather": _gather,
        "scatter scatter_add scatter_mul scatter_sub scatter_min scatter_max": _scatter,
        "reduce_window reduce_window_sum reduce_window_max reduce_window_min": _window,
        "rev": _along("dimensions"),
        "sort": _along("dimension"),
        "cumsum cumprod cummax cummin cumlogsumexp": _along("axis"),
        "fft": _leading(lambda e: len(e.params["fft_lengths"])),
        "top_k": _leading(lambda e: 1),
        "cholesky eigh lu qr svd": _leading(lambda e: 2),
        "triangular_solve tridiagonal_solve": _solve,
    }
)
