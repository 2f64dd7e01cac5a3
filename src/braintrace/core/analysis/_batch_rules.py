"""How an equation carries the batch axis from its operands to its results.

The answer holds the axes of the results and the equation's parameters as one sample has them. It is
None where samples meet, or where nothing is known of the primitive.
"""

import math
from collections.abc import Callable

from .._compat import Primitive, by_primitive
from ..jaxpr import Equation, axes_through
from ..sites import site_rule
from ._batch_axis import BatchAxis, Moved, Operands
from ._batch_calls import custom_call, linear_solve


def transfer(equation: Equation, operands: Operands) -> Moved | None:
    """How `equation` carries the axes of its operands on; None where it does not."""
    if (rule := _RULES.get(equation.primitive)) is not None:
        return rule(equation, operands)
    ways = [axes_through(equation, k) or _lanes(equation, k) for k in range(len(operands))]
    ends = {
        axis.at(way[axis.dim]) if axis.dim in way else None
        for axis, way in zip(operands, ways, strict=True)
        if axis is not None
    }
    end = ends.pop()
    if ends or end is None:
        return None
    aligned = {
        k: end.at(a)
        for k, (axis, way) in enumerate(zip(operands, ways, strict=True))
        for a, b in way.items()
        if axis is None and b == end.dim
    }
    name, of_result = _SIZES.get(equation.primitive, ("", False))
    params, axis = equation.params, end if of_result else operands[0]
    if name and axis is not None and (sizes := tuple(params[name]))[axis.dim] > 1:
        params = {**params, name: axis.sample_shape(sizes)}
    return Moved((end,) * len(equation.outputs), params, aligned)


def _lanes(equation: Equation, k: int) -> dict[int, int]:
    """The same for the data of an operation that a site rule knows (a sparse product, say)."""
    if len(equation.outputs) == 1:
        for weight in range(len(equation.inputs)):
            rule = site_rule(equation, weight) if weight != k else None
            if rule is not None and rule.data == (k,):
                lanes = [rule.lane_axis(d) for d in range(len(equation.outputs[0].shape))]
                return {a: d for d, a in enumerate(lanes) if a is not None and lanes.count(a) == 1}
    return {}


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


# The parameter with sizes along the axis, and whether it is that of the result or of operand 0.
_SIZES = by_primitive(
    {
        "broadcast_in_dim": ("shape", True),
        "slice": ("limit_indices", False),
        "dynamic_slice gather": ("slice_sizes", False),  # of an axis that is chosen from, 1
    }
)
_RULES: dict[Primitive, Callable[[Equation, Operands], Moved | None]] = by_primitive(
    {
        "reshape": _reshape,
        "linear_solve custom_linear_solve": lambda e, axes: linear_solve(e, axes, transfer),
        "custom_jvp_call custom_vjp_call": lambda e, axes: custom_call(e, axes, transfer),
    }
)
