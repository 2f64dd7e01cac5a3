"""What each variable of the step depends on: forward walks.

Two kinds of dependence are kept apart. By *value*: a variable that depends on parameters and
constants alone belongs to the prelude. By *derivative*: only differentiable variables pass it on,
and `stop_gradient`, comparisons and rounding end it.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence, Set

from .._compat import named
from ..jaxpr import Atom, Equation, Program, Var

Edge = tuple[Equation, int]  # an equation and the number of one of its operands

_NO_DERIVATIVE = named("stop_gradient floor ceil round sign")


def passes_derivative(equation: Equation) -> bool:
    """Whether a derivative can pass from an operand of `equation` to a result."""
    return equation.primitive not in _NO_DERIVATIVE


def depends(
    equations: Sequence[Equation], start: Iterable[Var], apart: Set[Var] = frozenset()
) -> set[Var]:
    """The variables that depend on `start` by value, not through those `apart`."""
    reached = set(start) - apart
    for e in equations:
        if any(v in reached for v in e.inputs):
            reached.update(v for v in e.outputs if v not in apart)
    return reached


def reach(
    equations: Sequence[Equation], start: Iterable[Var], blocked: Collection[Edge] = ()
) -> set[Var]:
    """The variables that a derivative reaches from `start`, not passing the blocked edges."""
    reached = {v for v in start if v.differentiable}
    for e in equations:
        if passes_derivative(e) and any(
            v in reached and (e, k) not in blocked for k, v in enumerate(e.inputs)
        ):
            reached.update(v for v in e.outputs if v.differentiable)
    return reached


@dataclasses.dataclass(frozen=True)
class Dependence:
    """Sets of variables: `prelude` by value, the others by derivative."""

    prelude: Set[Atom]  # depends by value on parameters and constants only
    params: Mapping[Atom, frozenset[int]]  # the parameters that reach it by derivative
    old: Set[Atom]  # reached from the old hidden state

    def of(self, atom: Atom) -> frozenset[int]:
        """Numbers of the parameters that reach `atom`."""
        return self.params.get(atom, frozenset())

    def weights(self, equation: Equation) -> list[tuple[int, Var]]:
        """The operands that parameters and constants alone make, and that parameters reach."""
        operands = enumerate(equation.inputs)
        return [
            (k, v)
            for k, v in operands
            if isinstance(v, Var) and v in self.prelude and v in self.params
        ]

    def relevant(self, atom: Atom) -> bool:
        """Whether a parameter or the old hidden state reaches `atom`."""
        return atom in self.params or atom in self.old


def dependence(
    equations: Sequence[Equation], params: Sequence[Var], hidden: Sequence[Var]
) -> Dependence:
    prelude: set[Atom] = set(params)
    of_params: dict[Atom, frozenset[int]] = {
        v: frozenset((k,)) for k, v in enumerate(params) if v.differentiable
    }
    for e in equations:
        if all(not isinstance(v, Var) or v in prelude for v in e.inputs):
            prelude.update(e.outputs)
        if passes_derivative(e):
            reached = frozenset().union(*(of_params.get(v, frozenset()) for v in e.inputs))
            if reached:
                of_params.update({v: reached for v in e.outputs if v.differentiable})
    return Dependence(prelude, of_params, reach(equations, hidden))


def live(program: Program) -> Program:
    """The program without the equations that no output needs."""
    needed = set(program.outputs)
    kept = []
    for e in reversed(program.equations):
        if any(v in needed for v in e.outputs):
            needed.update(e.inputs)
            kept.append(e)
    return Program(program.inputs, kept[::-1], program.outputs)
