"""e-prop's filter: a leaky sum of what a readout reads."""

import dataclasses
from collections.abc import Callable, Collection
from typing import ClassVar

from .._errors import CompilationError
from ..analysis import CellGraph, Exit, ExitKind
from ..jaxpr import Atom, Var
from ._editor import Edit, Editor, by_edge, read_out, sg


@dataclasses.dataclass(frozen=True)
class OutputFilter(Edit):
    """A leaky sum at every exit z that a readout consumes: `F <- leak F + z`, and the readout's
    gradient goes to F.

    With dL/dz at the readout's edge in its place, dL/dF times the eligibility of F is the filtered
    eligibility of z: what e-prop calls the trace filtered with kappa, and OTPE's R-hat. Here z is
    all that the readout reads at an edge, as it reads it.
    """

    replaces: ClassVar[str] = "the readout is filtered in time"

    leak: float | None  # None: that of the model's own leaky readout

    def resolve(self, exits: list[Exit], leak_of: Callable[[int], float]) -> "OutputFilter":
        if self.leak is not None:
            return self
        read = [x for x in exits if x.kind is ExitKind.READOUT]
        found = {leak_of(g) for x in read for g in x.feeds}
        if found and not all(x.feeds for x in read):
            found.add(0.0)  # a readout without memory beside one with it
        if len(found) != 1:
            raise CompilationError(
                "The filter cannot be read from the model.",
                got=f"{len(found)} different leaks of readouts",
                expected="leaky readouts of one leak",
                do="give kappa_filter_decay as a number",
            )
        return OutputFilter(found.pop())

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return read_out(exits)

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        assert self.leak is not None
        through: dict[Var, Atom] = {}
        for (equation, k), found in by_edge(exits, ExitKind.READOUT).items():
            z = found[0].variable
            if z not in through:
                new = editor.leaky_sum(z, self.leak, found)
                through[z] = editor.apply(lambda z, f: sg(z) + (f - sg(f)), z, new)
            equation.inputs[k] = through[z]
