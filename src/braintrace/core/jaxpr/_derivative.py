"""The derivative that a call brings along (`custom_jvp`, `custom_vjp`), as a program of its own.

Autodiff never looks at what such a call computes, only at its rule. The rule is staged as a program
from the call's operands and the cotangents of its results to the cotangents of its operands, and
questions about the call are asked of that program.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from .._compat import ClosedJaxpr, is_differentiable, is_traced
from ._linear import IN_ONE, LINEAR, is_linear_in
from ._program import Atom, Const, Equation, Program, Var

RULE = "derivative"  # the parameter of a call that brings its `Derivative` along


@dataclasses.dataclass(frozen=True, eq=False)
class Derivative:
    """`program` has inputs (the call's operands `variables`, cotangents of its results `results`)
    and outputs (cotangents of its operands `operands`).
    """

    program: Program
    variables: tuple[int, ...]
    operands: tuple[int, ...]
    results: tuple[int, ...]

    @property
    def cotangents(self) -> list[Var]:
        return self.program.inputs[len(self.program.inputs) - len(self.results) :]

    @functools.cached_property
    def bent(self) -> frozenset[int]:
        """The operands whose cotangents no linear function of the results' cotangents gives, as far
        as the program's equations show.
        """
        linear, bent, zero = set[Atom](self.cotangents), set[Atom](), set[Atom]()
        is_zero = lambda v: v in zero or _is_zero(v)
        for e in self.program.equations:
            found = {k for k, v in enumerate(e.inputs) if v in linear}
            if any(v in bent for v in e.inputs):
                bent.update(e.outputs)
            elif _stays_zero(e, [is_zero(v) for v in e.inputs]):
                zero.update(e.outputs)
            elif found:
                others = [v for k, v in enumerate(e.inputs) if k not in found and not is_zero(v)]
                (linear if is_linear_in(e, found, others) else bent).update(e.outputs)
        ends = zip(self.operands, self.program.outputs, strict=True)
        return frozenset(k for k, v in ends if not (v in linear or is_zero(v)))


def _stays_zero(equation: Equation, zero: list[bool]) -> bool:
    """Whether the result is zero where the operands marked so are."""
    if equation.primitive in LINEAR:
        return all(zero)
    return equation.primitive in IN_ONE and any(zero)


def _is_zero(atom: Atom) -> bool:
    if not isinstance(atom, Const) or not is_differentiable(atom.dtype) or is_traced(atom.value):
        return False
    return not np.any(np.asarray(atom.value))


Numbers = tuple[int, ...]
Arrays = Sequence[jax.Array]


def pullback(equation: Equation) -> tuple[ClosedJaxpr, Numbers, Numbers, Numbers]:
    """The program of a `Derivative` before its calls are opened, with its other fields."""
    variables = tuple(k for k, v in enumerate(equation.inputs) if isinstance(v, Var))
    operands = tuple(k for k in variables if equation.inputs[k].differentiable)
    results = tuple(o for o, v in enumerate(equation.outputs) if v.differentiable)

    def function(known: Arrays, cotangents: Arrays) -> tuple[jax.Array, ...]:
        given = dict(zip(variables, known, strict=True))

        def call(*moved: jax.Array) -> list[jax.Array]:
            values = given | dict(zip(operands, moved, strict=True))
            atoms = enumerate(equation.inputs)
            made = equation.bind([v.value if isinstance(v, Const) else values[k] for k, v in atoms])
            return [made[o] for o in results]

        _, pull = jax.vjp(call, *(given[k] for k in operands))
        return pull(list(cotangents))

    avals = lambda atoms: [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in atoms]
    known = avals(equation.inputs[k] for k in variables)
    closed = jax.make_jaxpr(function)(known, avals(equation.outputs[o] for o in results))
    return closed, variables, operands, results
