"""How calls carry the batch axis on: the programs that they hold are followed through."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from .._compat import sub_jaxprs
from ..jaxpr import RULE, Atom, Equation, Program, Var, derivative, inline
from ._batch_axis import BatchAxis, Moved, Operands
from ._dependence import live

Transfer = Callable[[Equation, Operands], Moved | None]


@dataclasses.dataclass(frozen=True)
class _Inside:
    """What becomes of a program inside an equation; its inputs that are read sample by sample count
    as batched.
    """

    program: Program
    axes: Mapping[Atom, BatchAxis]
    moved: Mapping[Equation, Moved]

    @property
    def outs(self) -> tuple[BatchAxis | None, ...]:
        return tuple(self.axes.get(v) for v in self.program.outputs)

    def aligned(self, operands: Operands) -> dict[int, BatchAxis]:
        inputs = enumerate(zip(self.program.inputs, operands, strict=True))
        return {k: self.axes[v] for k, (v, a) in inputs if a is None and v in self.axes}


def _inside(program: Program, operands: Operands, transfer: Transfer) -> _Inside | None:
    known: dict[Atom, BatchAxis] = {
        v: a for v, a in zip(program.inputs, operands, strict=True) if a
    }
    while True:
        axes, read = dict(known), dict[Atom, BatchAxis]()
        moved: dict[Equation, Moved] = {}
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


def custom_call(equation: Equation, operands: Operands, transfer: Transfer) -> Moved | None:
    """A call with a derivative of its own: its inner program and its rule, followed through."""
    inside = _inside(inline(sub_jaxprs(equation.params)[0]), operands, transfer)
    rule = derivative(equation)
    if inside is None or rule is None:
        return None
    aligned = inside.aligned(operands)
    axes = [aligned.get(k, a) for k, a in enumerate(operands)]
    # the cotangent of a shared operand is a sum over samples
    kept = [n for n, k in enumerate(rule.operands) if axes[k]]
    program = rule.program
    program = live(Program(program.inputs, program.equations, [program.outputs[n] for n in kept]))
    known = [axes[k] for k in rule.variables] + [inside.outs[o] for o in rule.results]
    back = _inside(program, known, transfer)
    own = tuple(rule.operands[n] for n in kept)
    if back is None or any(a not in (None, axes[k]) for k, a in zip(own, back.outs, strict=True)):
        return None
    of_one = dataclasses.replace(rule, program=_of_one_sample(back), operands=own)
    return Moved(inside.outs, {**equation.params, RULE: of_one}, aligned)


def linear_solve(equation: Equation, operands: Operands, transfer: Transfer) -> Moved | None:
    """A system for each sample: its solver, followed through."""
    lengths, solver = equation.params["const_lengths"], equation.params["jaxprs"].solve
    start = lengths.matvec + lengths.vecmat
    first, unknown = operands[start : start + lengths.solve], operands[sum(lengths) :]
    inside = _inside(inline(solver), [*first, *unknown], transfer)
    return None if inside is None else Moved(inside.outs, equation.params)


def _of_one_sample(inside: _Inside) -> Program:
    """The inner program at the shapes of one sample."""
    axes, program = inside.axes, inside.program
    made: dict[Atom, Var] = {}

    def of(v: Atom, axis: BatchAxis | None) -> Atom:
        return v if axis is None else made.setdefault(v, Var(axis.sample_shape(v.shape), v.dtype))

    def variables(those: Sequence[Var]) -> list[Var]:
        return [o for v in those if isinstance(o := of(v, axes.get(v)), Var)]

    equations = []
    for e in program.equations:
        found = inside.moved.get(e) or Moved((), e.params)
        inputs = [of(v, axes.get(v) or found.aligned.get(k)) for k, v in enumerate(e.inputs)]
        outputs = variables(e.outputs)
        equations.append(Equation(e.primitive, inputs, outputs, found.params, e.source))
    results = [of(v, axes.get(v)) for v in program.outputs]
    return Program(variables(program.inputs), equations, results)
