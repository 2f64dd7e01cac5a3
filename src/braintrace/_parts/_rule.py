"""A rule: the parts that an algorithm chooses."""

import dataclasses
from typing import Any, Protocol

import jax.numpy as jnp

from .._analysis import CellGraph, Exit, Signature, analyse, find_exits, with_layers
from ._carrier import Carrier
from ._editor import Editor


class Edit(Protocol):
    """What an algorithm adds to the step: an output filter, a feedback weight, a projected target."""

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        """Edit the program; `exits` are those of the program before any edit."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an algorithm is made of. `multi_step_problem`: why BPTT inside a window has no meaning for it, or ''."""

    name: str
    carrier: Carrier
    edits: tuple[Edit, ...] = ()
    multi_step_problem: str = ""

    def apply(self, graph: CellGraph, signature: Signature, max_slots: int) -> CellGraph:
        """The graph of the cell with the rule's edits."""
        if self.edits:
            editor, exits = Editor(graph), find_exits(graph)
            for edit in self.edits:
                edit.edit(editor, exits)
            graph = analyse(editor.program(), editor.signature(signature), max_slots)
        return with_layers(graph) if self.carrier.whole_layer else graph

    def init(self, graph: CellGraph) -> Any:
        """Zero traces: those of the carrier and, where the rule added leaves to the carry, the leaves' first values."""
        carried = self.carrier.init(graph)
        return {"carrier": carried, "extra": [jnp.asarray(e.initial) for e in graph.extra]} if graph.extra else carried
