"""How an equation carries the batch axis from its operands to its results.

The answer holds the axes of the results and the equation's parameters as one sample has them. It is
None where samples meet, or where nothing is known of the primitive.
"""

import dataclasses
import math
from collections.abc import Callable

from .._compat import Primitive, by_primitive, sub_jaxprs
from ..jaxpr import RULE, Atom, Equation, Program, axes_through, derivative, inline
from ..sites import site_rule
from ._batch_axis import BatchAxis, Moved, Operands
from ._dependence import live
from ._sample import OneSample, Samples


def follow(samples: Samples, equation: Equation) -> Moved | None:
    """Carry the axes of an equation's operands on; None where it has none, or they end."""
    operands = [samples.axes.get(v) for v in equation.inputs]
    moved = transfer(equation, operands) if any(operands) else None
    if moved is not None:
        samples.axes.update((v, a) for v, a in zip(equation.outputs, moved.outs, strict=True) if a)
        samples.aligned.update(((equation, k), a) for k, a in moved.aligned.items())
        samples.params[equation] = moved.params
    return moved


def transfer(equation: Equation, operands: Operands) -> Moved | None:
    """How `equation` carries the axes of its operands on; None where it does not."""
    if (rule := _RULES.get(equation.primitive)) is not None:
        return rule(equation, operands)
    through = [axes_through(equation, k) for k in range(len(operands))]
    ways = [way or _lanes(equation, k) for k, way in enumerate(through)]
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
    # what a product has beside its result, the kernel's own work space, is of no sample
    outs = [end if any(through) or not n else None for n in range(len(equation.outputs))]
    return Moved(tuple(outs), params, aligned)


def _lanes(equation: Equation, k: int) -> dict[int, int]:
    """The same for the data of an operation that a site rule knows (a sparse product, say)."""
    if not any(v.differentiable for v in equation.outputs[1:]):
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


# Calls: the programs that they hold are followed through.
# -----------------------------------------------------------------------------


def _inside(program: Program, operands: Operands) -> Samples | None:
    """The samples of a program inside an equation; its inputs that are read sample by sample count
    as batched.
    """
    known: dict[Atom, BatchAxis] = {
        v: a for v, a in zip(program.inputs, operands, strict=True) if a
    }
    while True:
        samples = Samples(dict(known))
        for e in program.equations:
            moved = follow(samples, e)
            if moved is None and any(v in samples.axes for v in e.inputs):
                return None
        read = {e.inputs[k]: a for (e, k), a in samples.aligned.items()}
        new = {v: read[v] for v in program.inputs if v in read and v not in known}
        if not new:
            return samples
        known |= new


def _outs(program: Program, samples: Samples) -> tuple[BatchAxis | None, ...]:
    return tuple(samples.axes.get(v) for v in program.outputs)


def _custom_call(equation: Equation, operands: Operands) -> Moved | None:
    """A call with a derivative of its own: its inner program and its rule, followed through."""
    inner = inline(sub_jaxprs(equation.params)[0])
    inside, rule = _inside(inner, operands), derivative(equation)
    if inside is None or rule is None:
        return None
    axes, outs = [inside.axes.get(v) for v in inner.inputs], _outs(inner, inside)
    # the cotangent of a shared operand is a sum over samples
    kept = [n for n, k in enumerate(rule.operands) if axes[k]]
    program = rule.program
    program = live(Program(program.inputs, program.equations, [program.outputs[n] for n in kept]))
    known = [axes[k] for k in rule.variables] + [outs[o] for o in rule.results]
    back = _inside(program, known)
    own = tuple(rule.operands[n] for n in kept)
    if back is None or any(
        a not in (None, axes[k]) for k, a in zip(own, _outs(program, back), strict=True)
    ):
        return None
    of_one = dataclasses.replace(rule, program=OneSample(back).program(program), operands=own)
    aligned = {k: a for k, a in enumerate(axes) if a and operands[k] is None}
    return Moved(outs, {**equation.params, RULE: of_one}, aligned)


def _linear_solve(equation: Equation, operands: Operands) -> Moved | None:
    """A system for each sample: its solver, followed through."""
    lengths, solver = equation.params["const_lengths"], inline(equation.params["jaxprs"].solve)
    start = lengths.matvec + lengths.vecmat
    first, unknown = operands[start : start + lengths.solve], operands[sum(lengths) :]
    inside = _inside(solver, [*first, *unknown])
    return None if inside is None else Moved(_outs(solver, inside), equation.params)


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
        "linear_solve custom_linear_solve": _linear_solve,
        "custom_jvp_call custom_vjp_call": _custom_call,
    }
)
