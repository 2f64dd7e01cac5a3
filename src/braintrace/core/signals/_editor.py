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
from jaxtyping import Array

from .._errors import CompilationError
from .._precision import wide
from ..analysis import CellGraph, Exit, ExitKind, ExtraLeaf, Signature, Site, activities, analyse
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Equation, Program, Var, extend, sort_equations
from ..traces._filters import counting, leaky_step, sample_shaped

sg = jax.lax.stop_gradient

Make = Callable[[Var], Atom]


class Editor:
    """A program under edit. `graph` is its analysis before the edits.

    >>> import dataclasses, jax
    >>> from braintrace import checks, rules
    >>> @dataclasses.dataclass(frozen=True)
    ... class Halved(rules.Edit):  # half of the signal reaches what a readout reads
    ...     replaces = "half of the signal is left"
    ...     def edit(self, editor, exits):
    ...         half = lambda z: 0.5 * z + jax.lax.stop_gradient(0.5 * z)
    ...         for exit in exits:
    ...             if exit.kind is rules.ExitKind.READOUT:
    ...                 equation, k = exit.edge
    ...                 equation.inputs[k] = editor.apply(half, exit.variable)
    >>> @dataclasses.dataclass(frozen=True)
    ... class Half(rules.Algorithm):
    ...     name = "Half"
    ...     def parts(self):
    ...         return rules.Rule("half", rules.PerParameter(), (Halved(),))
    >>> checks.check_rule(Half, ["leaky"], laws=["bytes", "certificate"]).ok
    True
    """

    def __init__(self, graph: CellGraph):
        self.graph = graph
        self.equations = list(graph.program.equations)
        self.params, self.carry, self.xs = list(graph.params), list(graph.carry), list(graph.xs)
        self.new_carry, self.outs = list(graph.new_carry), list(graph.outs)
        self.leaves: list[ExtraLeaf] = []
        # a boolean: whether what the rule adds to the loss counts at this step; None for always
        self.counts: Var | None = None
        # leaves of the carry that the rule's carrier treats apart
        self.marks: dict[str, frozenset[int]] = {}
        self._filtered: list[tuple[Var, Exit]] = []

    def apply(self, function: Callable[..., object], *operands: Atom) -> Any:
        """Append `function` of `operands`; its one result."""
        return extend(self.equations, function, operands)[0]

    def add_leaf(
        self, name: str, initial: np.ndarray, *, inert: bool = True, shared: bool = False
    ) -> Var:
        """A new real leaf of the carry, which stays as it is or as the driver sets it. A shared
        leaf is that of all samples.
        """
        self.leaves.append(ExtraLeaf(name, initial, inert, shared))
        leaf = Var(initial.shape, initial.dtype)
        self.carry.append(leaf)
        self.new_carry.append(leaf)
        return leaf

    def add_state(
        self, name: str, start: np.ndarray, move: Callable[..., Any], *operands: Atom, **said: bool
    ) -> tuple[Var, Var]:
        """(old, new) values of a new state, `move(old, *operands)` being the new one. A complex one
        is held as a real and an imaginary leaf, as the cell's own are; `said` of them.
        """
        parts = (jnp.real, jnp.imag) if np.iscomplexobj(start) else ()
        starts = [np.real(start), np.imag(start)] if parts else [start]
        leaves = [self.add_leaf(name, part, **said) for part in starts]
        old = self.apply(jax.lax.complex, *leaves) if parts else leaves[0]
        new = self.apply(move, old, *operands)
        self.new_carry[-len(leaves) :] = [self.apply(take, new) for take in parts] or [new]
        return old, new

    def leaky_sum(self, z: Var, leak: float, exits: Sequence[Exit]) -> Var:
        """`F <- leak F + z` in a new leaf, at least float32; its new value. `exits`: those that z
        belongs to.
        """
        first, zero = len(self.carry), np.zeros(z.shape, wide(z.dtype))
        move = lambda f, z: leaky_step(f, z, leak)
        _, new = self.add_state("output filter", zero, move, z, inert=False)
        self._filtered += [(leaf, x) for leaf in self.carry[first:] for x in exits]
        return new

    def leaky_mean(self, name: str, value: Var, leak: float) -> Var:
        """The mean over steps of `value`, a step weighted `leak` times the next one: a constant.
        Its weight is counted sample by sample.
        """
        zero = np.zeros(value.shape, wide(value.dtype))
        none = np.zeros(value.shape[:1], counting(value.dtype))
        count = lambda n: leaky_step(sg(n), jnp.ones_like(n), leak)
        _, n = self.add_state(f"weight of the {name}", none, count)
        move = lambda m, n, v: sg(m) + (sg(v) - sg(m)) / sample_shaped(n, m)
        return self.add_state(name, zero, move, n, value)[1]

    def source_of(self, v: Var) -> str:
        """The line that makes a variable of the step."""
        return next((e.source for e in self.graph.step if v in e.outputs), "")

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
        other: Callable[[Atom], Atom] | None = None,
    ) -> Atom:
        """`result` made again from what is `swapped` for the variables on its way, and from `other`
        of all other operands; without it, from these themselves.
        """
        other = other or (lambda v: v)
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
        self, old: Var, make: Make, keep: Collection[Equation] = (), results: bool = True
    ) -> None:
        """Let every reader of `old`, but the equations in `keep`, read `make(old)`; also the
        results of the step.
        """
        readers = [e for e in self.equations if old in e.inputs and e not in keep]
        new = make(old)
        swapped = lambda atoms: [new if v is old else v for v in atoms]
        for e in readers:
            e.inputs = swapped(e.inputs)
        if results:
            self.new_carry, self.outs = swapped(self.new_carry), swapped(self.outs)

    def analysed(self, before: Signature, max_slots: int) -> CellGraph:
        """The edited program, analysed."""
        inputs = [*self.params, *self.carry, *self.xs]
        outputs = [*self.new_carry, *self.outs]
        program = Program(inputs, sort_equations(self.equations), outputs)
        signature = dataclasses.replace(
            before,
            carry=(*before.carry, *(f"<{leaf.name}>" for leaf in self.leaves)),
            claim=before.claim and before.claim.extended(len(self.leaves)),
            extra=tuple(self.leaves),
            marks=self.marks,
        )
        edited = analyse(program, signature, max_slots)
        for leaf, found in self._filtered:  # a filter must couple with what it filters
            number = self.carry.index(leaf)
            coupled = next((set(g.leaves) for g in edited.groups if number in g.leaves), set())
            if not coupled & set(self.graph.groups[found.group].leaves):
                raise CompilationError(
                    "The activity cannot be filtered: it has no one position per neuron.",
                    got=f"a filter of shape {leaf.shape} that does not couple with its neurons",
                    do="use D_RTRL, or raise max_slots",
                    at=found.edge[0].source,
                )
        return edited


class Edit(abc.ABC):
    """What an algorithm adds to the step: an output filter, a feedback weight, a projected
    target.

    >>> from braintrace import rules
    >>> rules.FiringRate(0.1, 2.0).replaces
    'a firing-rate term is added'
    """

    #: What it puts in place of the gradient of the loss at the exits, as a reason in the
    #: certificate; '' for nothing.
    replaces: ClassVar[str] = ""
    #: Whether it brings samples together, so that one's signal depends on others, or on how the
    #: losses of all are weighted.
    meets: ClassVar[bool] = False

    def resolve(self, exits: list[Exit], leak_of: Callable[[int], float]) -> "Edit":
        """The edit with what it reads from the model put in as numbers."""
        return self

    def measured(
        self, graph: CellGraph, exits: list[Exit], values: Callable[[], Mapping[Var, Array]]
    ) -> "Edit":
        """The edit with what it has to say of the parameters as they are at compile time; `values`
        gives those of the prelude.
        """
        return self

    def warnings(self, site: Site) -> list[str]:
        """What of the model may take a site's gradient far from the right one, and what to do."""
        return []

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        """The variables whose gradient it changes: by default, of what others read."""
        return activities(graph, exits).values()

    @abc.abstractmethod
    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        """Edit the program; `exits` are those of the program before any edit."""


def by_edge(exits: Sequence[Exit], *kinds: ExitKind) -> dict[Edge, list[Exit]]:
    """The edges with exits of these kinds, with those exits, in the order of the program."""
    found: dict[Edge, list[Exit]] = {}
    for x in exits:
        if x.kind in kinds:
            found.setdefault(x.edge, []).append(x)
    return found


TO_OTHERS = (ExitKind.READOUT, ExitKind.FORWARD)
