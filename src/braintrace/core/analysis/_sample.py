"""The program of one sample, and back.

Position labels, groups and places are the same for every sample, so they are found for one: time
and memory of the analysis do not depend on the size of the batch.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from ..jaxpr import Atom, Const, Equation, Program, Var
from ._batch import Batch
from ._dependence import Dependence, Edge


@dataclasses.dataclass(frozen=True, eq=False)
class SampleProgram:
    """`program` is that of one sample; `full` and `origin` say what its variables and equations
    stand for in the program of all.
    """

    program: Program
    batch: Batch | None
    full: Mapping[Var, Atom]
    origin: Mapping[Equation, Equation]
    dependence: Dependence
    crossings: frozenset[Edge]


def of_one_sample(program: Program, batch: Batch | None, dependence: Dependence) -> SampleProgram:
    """The program of one sample of `batch`; without a batch, of all there is."""
    if batch is None:
        same = {e: e for e in program.equations}
        return SampleProgram(program, None, {}, same, dependence, frozenset())
    sample: dict[Var, Var] = {}
    full: dict[Var, Atom] = {}

    def of(v: Var) -> Var:
        if v not in sample:
            axis = batch.axes.get(v)
            sample[v] = v if axis is None else Var(axis.sample_shape(v.shape), v.dtype)
            full[sample[v]] = v
        return sample[v]

    def read(e: Equation, k: int) -> Atom:
        v = e.inputs[k]
        if (axis := batch.aligned.get((e, k))) is None:
            return of(v) if isinstance(v, Var) else v
        own = Var(axis.sample_shape(v.shape), v.dtype)  # a part of what is shared
        full[own] = v
        return own

    origin, crossings = {}, set()
    inputs = [of(v) for v in program.inputs]
    for e in program.equations:
        operands = [read(e, k) for k in range(len(e.inputs))]
        outputs = [of(v) for v in e.outputs]
        made = Equation(e.primitive, operands, outputs, batch.params.get(e, e.params), e.source)
        origin[made] = e
        crossings |= {(made, k) for k in range(len(e.inputs)) if (e, k) in batch.crossings}
    outs = [of(v) if isinstance(v, Var) else v for v in program.outputs]
    found = Program(inputs, list(origin), outs)
    seen = _of_sample(dependence, full)
    return SampleProgram(found, batch, full, origin, seen, frozenset(crossings))


def _of_sample(dependence: Dependence, full: Mapping[Var, Atom]) -> Dependence:
    """What is known of the variables, for those of one sample."""
    of = {v: f for v, f in full.items() if isinstance(f, Var)}
    constant = {v for v, f in full.items() if isinstance(f, Const)}
    prelude = {v for v, f in of.items() if f in dependence.prelude} | constant
    params: dict[Atom, frozenset[int]] = {
        v: dependence.params[f] for v, f in of.items() if f in dependence.params
    }
    return Dependence(prelude, params, {v for v, f in of.items() if f in dependence.old})


@dataclasses.dataclass(frozen=True, eq=False)
class Expanded:
    """The program of all samples again, with the repetitions that labelling added."""

    program: Program
    variable: Mapping[Var, Atom]  # of all samples, for those of one
    equation: Mapping[Equation, Equation]
    batch: Batch | None


def expanded(
    sample: SampleProgram,
    equations: Sequence[Equation],
    outputs: Sequence[Atom],
    copied: Mapping[Equation, Equation],
) -> Expanded:
    """The program of all samples whose equations are like `equations` of one.

    `copied` says of which equation of `sample` each is a copy.
    """
    variable: dict[Var, Atom] = dict(sample.full)
    made: dict[Equation, Equation] = {}
    axes = dict(sample.batch.axes) if sample.batch else {}
    aligned = dict(sample.batch.aligned) if sample.batch else {}

    def whole(v: Atom) -> Atom:
        return variable.get(v, v) if isinstance(v, Var) else v

    for e in equations:
        first = copied.get(e, e)
        origin = sample.origin.get(first)
        if origin is None:  # a hand-over of a leaf as it is
            inputs, params = [whole(v) for v in e.inputs], e.params
            shapes = [v.shape for v in inputs]
        else:
            pairs = zip(e.inputs, first.inputs, origin.inputs, strict=True)
            inputs = [full if v is before else whole(v) for v, before, full in pairs]
            shapes, params = [v.shape for v in origin.outputs], origin.params
        outs = [Var(s, v.dtype) for s, v in zip(shapes, e.outputs, strict=True)]
        if origin is not None and e.outputs == first.outputs:  # no repetition
            outs = origin.outputs
        new = Equation(e.primitive, inputs, outs, params, e.source)
        for k, v in enumerate(e.outputs):
            variable[v] = outs[k]
            old = inputs[0] if origin is None else origin.outputs[k]
            if isinstance(old, Var) and old in axes:
                axes[outs[k]] = axes[old]
        for k in range(len(inputs)):
            if origin is not None and (origin, k) in aligned:
                aligned[new, k] = aligned[origin, k]
        made[e] = new
    inputs = [full for v in sample.program.inputs if isinstance(full := whole(v), Var)]
    program = Program(inputs, list(made.values()), [whole(v) for v in outputs])
    batch = sample.batch and dataclasses.replace(sample.batch, axes=axes, aligned=aligned)
    return Expanded(program, variable, made, batch)
