"""Where the samples of a program lie, and its equations as one sample has them.

Position labels, groups and places are the same for every sample, so they are found for one: time
and memory of the analysis do not depend on the size of the batch.
"""

import dataclasses
from typing import TypeVar

from .._compat import Params
from ..jaxpr import Atom, Equation, Program, Var
from ._batch_axis import BatchAxis
from ._dependence import Edge
from ._influence import influences
from ._maps import Influence

A = TypeVar("A", bound=Atom)


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """`axes` of variables (those without one are shared), `params` of the equations as one sample
    has them.

    `aligned` gives the axis of an operand that is shared itself but read sample by sample, such as
    a bias that was broadcast.
    """

    axes: dict[Atom, BatchAxis] = dataclasses.field(default_factory=dict)
    aligned: dict[Edge, BatchAxis] = dataclasses.field(default_factory=dict)
    params: dict[Equation, Params] = dataclasses.field(default_factory=dict)

    def operand(self, equation: Equation, k: int) -> BatchAxis | None:
        """The axis of an operand."""
        return self.axes.get(equation.inputs[k]) or self.aligned.get((equation, k))


class OneSample:
    """Variables, equations and programs at the shapes of one sample; without samples, as they
    are.
    """

    def __init__(self, samples: Samples | None):
        self._samples = samples or Samples()
        self._variables: dict[Atom, Var] = {}
        self._equations: dict[Equation, Equation] = {}
        self._influences: dict[Equation, list[Influence]] = {}

    def atom(self, v: A) -> A | Var:
        if (axis := self._samples.axes.get(v)) is None:
            return v
        return self._variables.setdefault(v, Var(axis.sample_shape(v.shape), v.dtype))

    def equation(self, e: Equation) -> Equation:
        if e not in self._equations:
            inputs = [self._operand(e, k) for k in range(len(e.inputs))]
            outputs = [self.atom(v) for v in e.outputs]
            params = self._samples.params.get(e, e.params)
            self._equations[e] = Equation(e.primitive, inputs, outputs, params, e.source)
        return self._equations[e]

    def _operand(self, e: Equation, k: int) -> Atom:
        v, axis = e.inputs[k], self._samples.aligned.get((e, k))
        if axis is None:
            return self.atom(v)
        return Var(axis.sample_shape(v.shape), v.dtype)  # a part of what is shared

    def influences(self, e: Equation) -> list[Influence]:
        if e not in self._influences:
            self._influences[e] = influences(self.equation(e))
        return self._influences[e]

    def program(self, program: Program) -> Program:
        return Program(
            [self.atom(v) for v in program.inputs],
            [self.equation(e) for e in program.equations],
            [self.atom(v) for v in program.outputs],
        )
