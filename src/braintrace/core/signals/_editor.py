"""Editing a cell's program: what an algorithm adds to the step (filters, feedback, projected
targets) is added here.

A filter is one more leaf of the carry; a signal is one more input; a feedback weight is one more
operand. The engine then treats the edited program as it treats any cell. Throughout, `sg` is
`stop_gradient` and every addition has the value zero: the cell computes what it computed.
"""

import abc
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from .._errors import CompilationError
from ..analysis import CellGraph, Exit, ExitKind, ExtraLeaf, Signature
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Const, Equation, Program, Var, extend, sort_equations
from ..traces._filters import leaky_step

sg = jax.lax.stop_gradient


class Editor:
    """A program under edit. `graph` is its analysis before the edits."""

    def __init__(self, graph: CellGraph):
        self.graph = graph
        self.equations = list(graph.program.equations)
        self.params, self.carry, self.xs = list(graph.params), list(graph.carry), list(graph.xs)
        self.new_carry, self.outs = list(graph.new_carry), list(graph.outs)
        self.leaves: list[ExtraLeaf] = []
        # leaves of the carry that the rule's carrier treats apart
        self.marks: dict[str, frozenset[int]] = {}
        self._parts: dict[Var, list[Var]] = {}  # the real leaves of an added complex one
        self._filtered: list[tuple[Var, Exit]] = []

    def apply(self, function: Callable[..., object], *operands: Atom) -> Any:
        """Append `function` of `operands`; its one result."""
        return extend(self.equations, function, operands)[0]

    def constant(self, value: ArrayLike) -> Const:
        return Const(np.asarray(value))

    def add_leaf(
        self, name: str, initial: np.ndarray, *, inert: bool = False, shared: bool = False
    ) -> Var:
        """A new leaf of the carry; give its next value to `set_leaf`, or it stays as it is.

        A shared leaf is that of all samples. A complex one is held as a real and an imaginary
        leaf, as the cell's own are.
        """
        if np.iscomplexobj(initial):
            parts = [
                self.add_leaf(name, p, inert=inert, shared=shared)
                for p in (np.real(initial), np.imag(initial))
            ]
            whole = self.apply(jax.lax.complex, *parts)
            self._parts[whole] = parts
            return whole
        self.leaves.append(ExtraLeaf(name, initial, inert, shared))
        leaf = Var(initial.shape, initial.dtype)
        self.carry.append(leaf)
        self.new_carry.append(leaf)
        return leaf

    def set_leaf(self, leaf: Var, new: Atom) -> None:
        if leaf in self._parts:
            for part, take in zip(self._parts[leaf], (jnp.real, jnp.imag), strict=True):
                self.set_leaf(part, self.apply(take, new))
        else:
            self.new_carry[self.carry.index(leaf)] = new

    def leaky_sum(self, z: Var, leak: float, exits: Sequence[Exit]) -> Atom:
        """`F <- leak F + z` in a new leaf; its new value. `exits`: those that z belongs to."""
        leaf = self.add_leaf("output filter", np.zeros(z.shape, z.dtype))
        new = self.apply(lambda f, z: leaky_step(f, z, leak), leaf, z)
        self.set_leaf(leaf, new)
        self._filtered += [(part, x) for part in self._parts.get(leaf, [leaf]) for x in exits]
        return new

    def signal(self, name: str, initial: np.ndarray) -> Var:
        """A value that the driver sets before each step; `initial` where it does not."""
        for extra, leaf in zip(self.leaves, self.carry[len(self.graph.carry) :], strict=True):
            if extra.name == name:
                return leaf
        return self.add_leaf(name, initial, inert=True)

    def source_of(self, v: Var) -> str:
        """The line that makes a variable of the step."""
        return next((e.source for e in self.graph.step if v in e.outputs), "")

    def redirect(self, edge: Edge, operand: Atom) -> None:
        """Let an equation read `operand` in place of its own."""
        equation, k = edge
        equation.inputs[k] = operand

    def between(
        self, sources: Collection[Var], result: Var, blocked: Collection[Edge] = ()
    ) -> list[Equation]:
        """The step's equations on the ways from `sources` to `result`, in order; not through
        `blocked` edges.
        """
        reached, after = set(sources), []
        for e in self.graph.step:
            if any(v in reached and (e, k) not in blocked for k, v in enumerate(e.inputs)):
                reached.update(e.outputs)
                after.append(e)
        needed, path = {result}, []
        for e in reversed(after):
            if any(v in needed for v in e.outputs):
                needed.update(v for v in e.inputs if isinstance(v, Var))
                path.append(e)
        return path[::-1]

    def again(
        self,
        result: Var,
        swapped: Mapping[Var, Atom],
        blocked: Collection[Edge] = (),
        other: Callable[[Atom], Atom] = lambda v: v,
    ) -> Atom:
        """`result` made again from what is `swapped` for the variables on its way, and from `other`
        of all other operands.
        """
        made: dict[Atom, Atom] = {**swapped}
        for e in self.between(swapped, result, blocked):
            copy = e.copy()
            copy.inputs = [made[v] if v in made else other(v) for v in e.inputs]
            self.equations.append(copy)
            made = dict(zip(e.outputs, copy.outputs, strict=True)) | made
        return made[result] if result in made else other(result)

    def stopped(self, value: Atom) -> Atom:
        """`value` as a constant."""
        return self.apply(sg, value) if value.differentiable else value

    def replace(
        self, old: Var, make: Callable[[Var], Atom], keep: Collection[Equation] = ()
    ) -> None:
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

    def check(self, edited: CellGraph) -> None:
        """Each filter must couple with the groups that it filters, position by position."""
        for leaf, found in self._filtered:
            number = self.carry.index(leaf)
            coupled = next((set(g.leaves) for g in edited.groups if number in g.leaves), set())
            if not coupled & set(self.graph.groups[found.group].leaves):
                raise CompilationError(
                    "The activity cannot be filtered: it has no one position per neuron.",
                    got=f"a filter of shape {leaf.shape} that does not couple with its neurons",
                    do="use D_RTRL, or raise max_slots",
                    at=found.edge[0].source,
                )


class Edit(abc.ABC):
    """What an algorithm adds to the step: an output filter, a feedback weight, a projected
    target.
    """

    #: What it puts in place of the gradient of the loss at the exits, as a reason in the
    #: certificate; '' for nothing.
    replaces: ClassVar[str] = ""

    def resolve(self, exits: list[Exit], leak_of: Callable[[int], float]) -> "Edit":
        """The edit with what it reads from the model put in as numbers."""
        return self

    @abc.abstractmethod
    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        """The variables whose gradient it changes."""

    @abc.abstractmethod
    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        """Edit the program; `exits` are those of the program before any edit."""


def by_edge(exits: Sequence[Exit], kinds: Collection[ExitKind]) -> dict[Edge, list[Exit]]:
    """The edges with exits of these kinds, with those exits, in the order of the program."""
    found: dict[Edge, list[Exit]] = {}
    for x in exits:
        if x.kind in kinds:
            found.setdefault(x.edge, []).append(x)
    return found


READOUT = (ExitKind.READOUT,)
TO_OTHERS = (ExitKind.READOUT, ExitKind.FORWARD)
