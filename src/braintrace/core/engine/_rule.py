"""A rule: the parts that an algorithm chooses."""

import dataclasses
from collections.abc import Callable, Sequence

import jax.numpy as jnp

from ..analysis import CellGraph, Exactness, ParameterRow, Signature, find_exits, reach
from ..jaxpr import Var
from ..signals import Edit, Editor
from ..traces import Carrier, Traces


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an algorithm is made of. `multi_step_problem`: why BPTT inside a window has no meaning
    for it, or ''.
    """

    name: str
    carrier: Carrier
    edits: tuple[Edit, ...] = ()
    multi_step_problem: str = ""
    schedule: str | None = None  # 'A' or 'O', for algorithms that say when `etrace_fit` updates
    # 'per-step' or 'sequence-end', for algorithms that project targets
    target_timing: str | None = None

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> "Rule":
        """The rule with what it reads from the model (`leak_of` a group) put in as numbers."""
        carrier = self.carrier.resolve(graph, leak_of)
        exits = find_exits(graph) if self.edits else []
        return dataclasses.replace(
            self, carrier=carrier, edits=tuple(e.resolve(exits, leak_of) for e in self.edits)
        )

    def apply(self, graph: CellGraph, signature: Signature, max_slots: int) -> CellGraph:
        """The graph of the cell with the rule's edits."""
        exits = find_exits(graph) if self.edits else []
        changed = [(edit.replaces, set(edit.acts_on(graph, exits))) for edit in self.edits]
        # before the edits, which change the program's equations
        rows = self._certificate(self.carrier.arrange(graph), changed)
        edited = graph
        if self.edits:
            editor = Editor(graph)
            for edit in self.edits:
                edit.edit(editor, exits)
            edited = editor.analysed(signature, max_slots)
        return dataclasses.replace(self.carrier.arrange(edited), parameters=rows)

    def _certificate(
        self, graph: CellGraph, changed: Sequence[tuple[str, set[Var]]]
    ) -> tuple[ParameterRow, ...]:
        """The rows of the cell before the edits, with what the carrier and the edits put in place
        of the gradient; `changed` says where each edit does so.
        """
        rows = []
        for row, param in zip(graph.parameters, graph.params, strict=False):
            traced = any(graph.sites[n].places for n in row.sites)
            reasons = [self.carrier.approximation] if traced and self.carrier.approximation else []
            reached = _ever_reached(graph, param) if changed else set()
            reasons += [replaces for replaces, acts_on in changed if reached & acts_on]
            if reasons:
                instantaneous = row.exactness is Exactness.INSTANTANEOUS
                kind = Exactness.INSTANTANEOUS if instantaneous else Exactness.APPROXIMATE
                kept = [] if row.exactness is Exactness.EXACT else [row.reason]
                row = dataclasses.replace(row, exactness=kind, reason="; ".join([*kept, *reasons]))
            rows.append(row)
        return tuple(rows)

    def init(self, graph: CellGraph) -> Traces:
        """Zero traces: those of the carrier and, where the rule added leaves to the carry, the
        leaves' first values.
        """
        carried = self.carrier.init(graph)
        if not graph.extra:
            return carried
        return {"carrier": carried, "extra": [jnp.asarray(e.initial) for e in graph.extra]}


def _ever_reached(graph: CellGraph, param: Var) -> set[Var]:
    """The variables that a derivative from `param` reaches, at its own step or at a later one."""
    start, found = {param}, set[Var]()
    while not start <= found:
        found = reach([*graph.prelude, *graph.step], start | found)
        start = {old for old, new in zip(graph.carry, graph.new_carry, strict=True) if new in found}
    return found
