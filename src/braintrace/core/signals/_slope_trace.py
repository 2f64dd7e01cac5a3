"""S-TLLR's term of what came before: a leaky sum of past slopes meets the input of the moment."""

import dataclasses
from typing import ClassVar

import numpy as np
from jaxtyping import Array

from .._errors import CompilationError
from .._precision import wide
from ..analysis import Exit, Site, activities
from ..jaxpr import Var
from ..traces._filters import leaky_step
from ._editor import TO_OTHERS, Edit, Editor, by_edge, sg
from ._linear_loss import check_batch_in_front
from ._slope import surrogate


@dataclasses.dataclass(frozen=True)
class SlopeTrace(Edit):
    """What others read of a layer with activity z and drive y = W x is

        z + gain sg(P) (W sg(x) - sg(W x)),        P <- decay P + dz/dy

    with P the sum before this step. So W learns `gain (dL/dz P) x` beside what it learns through y.
    """

    replaces: ClassVar[str] = "past slopes meet the input of the moment"

    gain: float
    decay: float

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        graph, mixing = editor.graph, {x.edge for x in exits}
        active = activities(graph, exits, outputs=True)
        if not active:  # it would act on nothing
            raise CompilationError(
                "The trace of the slope is one of a layer's activity, and nothing is read.",
                expected="a state that keeps something of the old one, and an output or another "
                "layer that reads it",
                do="use 'ottt' or 'd_rtrl'",
            )
        seen = {z: self._seen(editor, g, z) for g, z in active.items()}
        for (equation, k), found in by_edge(exits, *TO_OTHERS).items():
            read = {active[x.group] for x in found if x.group in active}
            again = {z: seen[z] for z in read}
            equation.inputs[k] = editor.again(found[0].variable, again, mixing)
        editor.outs = [
            editor.again(out, seen, mixing) if isinstance(out, Var) else out for out in editor.outs
        ]

    def _seen(self, editor: Editor, group: int, z: Var) -> Var:
        """What others read in place of the activity z."""
        graph = editor.graph
        mine = {
            n: site
            for n, site in enumerate(graph.sites)
            if site.is_operation and group in [p.group for p in site.places]
        }
        past: dict[int, Var] = {}  # of the drives that meet in a sum, one
        for n, site in mine.items():
            first = graph.first_of_sum[n]
            if first not in past:
                past[first] = self._past_slopes(editor, site.y, z)

        def beside(z: Array, past: Array, y: Array) -> Array:
            return z + (self.gain * sg(past) * (y - sg(y))).astype(z.dtype)

        found = z
        for n, site in mine.items():
            y = _of_weight(editor, site)
            found = editor.apply(beside, found, past[graph.first_of_sum[n]], y)
        return found

    def _past_slopes(self, editor: Editor, y: Var, z: Var) -> Var:
        slope, zero = surrogate(editor, y, z), np.zeros(y.shape, wide(y.dtype))
        if editor.graph.batch is not None:
            check_batch_in_front(editor, y)
        move = lambda past, slope: leaky_step(past, sg(slope), self.decay)
        return editor.add_state("trace of the slope", zero, move, slope)[0]


def _of_weight(editor: Editor, site: Site) -> Var:
    """The site's y again, from constant data."""
    equation, weight = site.edge
    before, last = equation, equation.copy()
    last.inputs = [v if k == weight else editor.stopped(v) for k, v in enumerate(equation.inputs)]
    editor.equations.append(last)
    for e in site.chain:
        [old], [new] = before.outputs, last.outputs
        before, last = e, e.copy()
        last.inputs = [new if v is old else editor.stopped(v) for v in e.inputs]
        editor.equations.append(last)
    return last.outputs[0]
