"""How calls carry the batch axis on: the programs that they hold are followed through."""

import dataclasses

from .._compat import sub_jaxprs
from ..jaxpr import RULE, Atom, Equation, Program, derivative, inline
from ._batch_axis import BatchAxis, Moved, Operands
from ._dependence import live
from ._sample import OneSample, Samples, Transfer


def _inside(program: Program, operands: Operands, transfer: Transfer) -> Samples | None:
    """The samples of a program inside an equation; its inputs that are read sample by sample count
    as batched.
    """
    known: dict[Atom, BatchAxis] = {
        v: a for v, a in zip(program.inputs, operands, strict=True) if a
    }
    while True:
        samples = Samples(dict(known))
        for e in program.equations:
            moved = samples.follow(e, transfer)
            if moved is None and any(v in samples.axes for v in e.inputs):
                return None
        read = {e.inputs[k]: a for (e, k), a in samples.aligned.items()}
        new = {v: read[v] for v in program.inputs if v in read and v not in known}
        if not new:
            return samples
        known |= new


def _outs(program: Program, samples: Samples) -> tuple[BatchAxis | None, ...]:
    return tuple(samples.axes.get(v) for v in program.outputs)


def custom_call(equation: Equation, operands: Operands, transfer: Transfer) -> Moved | None:
    """A call with a derivative of its own: its inner program and its rule, followed through."""
    inner = inline(sub_jaxprs(equation.params)[0])
    inside, rule = _inside(inner, operands, transfer), derivative(equation)
    if inside is None or rule is None:
        return None
    axes, outs = [inside.axes.get(v) for v in inner.inputs], _outs(inner, inside)
    # the cotangent of a shared operand is a sum over samples
    kept = [n for n, k in enumerate(rule.operands) if axes[k]]
    program = rule.program
    program = live(Program(program.inputs, program.equations, [program.outputs[n] for n in kept]))
    known = [axes[k] for k in rule.variables] + [outs[o] for o in rule.results]
    back = _inside(program, known, transfer)
    own = tuple(rule.operands[n] for n in kept)
    if back is None or any(
        a not in (None, axes[k]) for k, a in zip(own, _outs(program, back), strict=True)
    ):
        return None
    of_one = dataclasses.replace(rule, program=OneSample(back).program(program), operands=own)
    aligned = {k: a for k, a in enumerate(axes) if a and operands[k] is None}
    return Moved(outs, {**equation.params, RULE: of_one}, aligned)


def linear_solve(equation: Equation, operands: Operands, transfer: Transfer) -> Moved | None:
    """A system for each sample: its solver, followed through."""
    lengths, solver = equation.params["const_lengths"], inline(equation.params["jaxprs"].solve)
    start = lengths.matvec + lengths.vecmat
    first, unknown = operands[start : start + lengths.solve], operands[sum(lengths) :]
    inside = _inside(solver, [*first, *unknown], transfer)
    return None if inside is None else Moved(_outs(solver, inside), equation.params)
