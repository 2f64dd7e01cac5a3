"""Editing a cell's program: what an algorithm adds to the step (filters, feedback, projected
targets) is added here.

A filter is one more leaf of the carry; a signal is one more input; a feedback weight is one more
operand. The engine then treats the edited program as it treats any cell.
"""

import abc
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import numpy as np

from ..analysis import CellGraph, Exit, ExtraLeaf, Signature
from ..jaxpr import Atom, Const, Equation, Program, Var, extend, sort_equations


class Editor:
    """A program under edit. `graph` is its analysis before the edits."""

    def __init__(self, graph: CellGraph):
        self.graph = graph
        self.equations = list(graph.program.equations)
        self.params, self.carry, self.xs = list(graph.params), list(graph.carry), list(graph.xs)
        self.new_carry, self.outs = list(graph.new_carry), list(graph.outs)
        self.leaves: list[ExtraLeaf] = []
        self.marks: dict[
            str, frozenset[int]
        ] = {}  # leaves of the carry that the rule's carrier treats apart

    def apply(self, function: Callable[..., Any], *operands: Atom) -> Any:
        """Append `function` of `operands`; its one result."""
        return extend(self.equations, function, operands)[0]

    def constant(self, value: Any) -> Const:
        return Const(np.asarray(value))

    def add_leaf(self, name: str, initial: np.ndarray, *, inert: bool = False) -> Var:
        """A new leaf of the carry; give its next value to `set_leaf`, or it stays as it is."""
        self.leaves.append(ExtraLeaf(name, initial, inert))
        leaf = Var(initial.shape, initial.dtype)
        self.carry.append(leaf)
        self.new_carry.append(leaf)
        return leaf

    def set_leaf(self, leaf: Var, new: Atom) -> None:
        self.new_carry[self.carry.index(leaf)] = new

    def signal(self, name: str, initial: np.ndarray) -> Var:
        """A value that the driver sets before each step; `initial` where it does not."""
        for extra, leaf in zip(self.leaves, self.carry[len(self.graph.carry) :], strict=True):
            if extra.name == name:
                return leaf
        return self.add_leaf(name, initial, inert=True)

    def fresh(self, values: Atom) -> Atom:
        """`values` with zeros in the lanes that start afresh at this step."""
        if not self.graph.resets:
            return values
        marks = self.graph.xs[-1]
        if not values.shape or values.shape[0] != self.graph.lanes:
            return values
        mask = lambda v, r: jax.numpy.where(r.reshape(r.shape + (1,) * (v.ndim - 1)), 0, v)
        return self.apply(mask, values, marks)

    def redirect(self, edge: tuple[Equation, int], operand: Atom) -> None:
        """Let an equation read `operand` in place of its own."""
        equation, k = edge
        equation.inputs[k] = operand

    def replace(self, old: Var, make: Callable[[Var], Atom], keep: Sequence[Any] = ()) -> None:
        """Let every reader of `old`, but the equations in `keep`, read `make(old)`."""
        readers = [e for e in self.equations if old in e.inputs and e not in keep]
        new = make(old)
        for e in readers:
            e.inputs = [new if v is old else v for v in e.inputs]
        self.new_carry = [new if v is old else v for v in self.new_carry]
        self.outs = [new if v is old else v for v in self.outs]

    def program(self) -> Program:
        """The edited program."""
        outputs = [*self.new_carry, *self.outs]
        return Program(
            [*self.params, *self.carry, *self.xs], sort_equations(self.equations), outputs
        )

    def signature(self, before: Signature) -> Signature:
        names = tuple(f"<{leaf.name}>" for leaf in self.leaves)
        return dataclasses.replace(
            before,
            carry=(*before.carry, *names),
            claim=before.claim and before.claim.extended(len(names)),
            extra=tuple(self.leaves),
            marks=self.marks,
        )


class Edit(abc.ABC):
    """What an algorithm adds to the step: an output filter, a feedback weight, a projected target."""

    #: What it puts in place of the gradient of the loss at the exits, as a reason in the
    #: certificate; '' for nothing.
    replaces: ClassVar[str] = ""

    def resolve(self, exits: list[Exit], leak_of: Callable[[int], float]) -> "Edit":
        """The edit with what it reads from the model put in as numbers."""
        return self

    @abc.abstractmethod
    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        """Edit the program; `exits` are those of the program before any edit."""
