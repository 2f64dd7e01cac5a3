"""What stands at the exits that readouts consume: e-prop's filter, and a feedback weight."""

import dataclasses
import functools
from collections.abc import Callable, Collection
from typing import ClassVar, NoReturn

import numpy as np
from jaxtyping import ArrayLike

from .._errors import CompilationError
from .._precision import wide
from ..analysis import CellGraph, Exit, ExitKind
from ..analysis._dependence import Edge
from ..jaxpr import Atom, Const, Equation, Var
from ..sites import site_rule
from ._editor import Edit, Editor, by_edge, sg
from ._matrices import Seed, matrices


class _OfReadouts(Edit):
    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return {x.variable for x in exits if x.kind is ExitKind.READOUT}


@dataclasses.dataclass(frozen=True)
class OutputFilter(_OfReadouts):
    """A leaky sum at every exit z that a readout consumes: `F <- leak F + z`, and the readout's
    gradient goes to F.

    With dL/dz at the readout's edge in its place, dL/dF times the eligibility of F is the filtered
    eligibility of z: what e-prop calls the trace filtered with kappa, and OTPE's R-hat. Here z is
    all that the readout reads at an edge, as it reads it.

    >>> from braintrace import rules
    >>> rules.OutputFilter(0.9).leak
    0.9
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

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        assert self.leak is not None
        through: dict[Var, Atom] = {}
        for (equation, k), found in by_edge(exits, ExitKind.READOUT).items():
            z = found[0].variable
            if z not in through:
                new = editor.leaky_sum(z, self.leak, found)
                through[z] = editor.apply(lambda z, f: sg(z) + (f - sg(f)).astype(z.dtype), z, new)
            equation.inputs[k] = through[z]


@dataclasses.dataclass(frozen=True)
class Feedback(_OfReadouts):
    """A feedback weight B in the backward pass of each readout: `y = W sg(z) + (B z - sg(B z))`.

    Random: B is drawn once, N(0, 1) scale / sqrt(fan-in). Adaptive (Kolen-Pollack): B and W get the
    same increments and both decay, so B - W decays by itself: B = sg(W) + E with `E <- (1 - decay)
    E`, which needs no increment to be observed. B has the shape and the dtype of W, complex ones
    included, also where z joins the activities of several groups.

    >>> from braintrace import rules
    >>> rules.Feedback(adaptive=False, seed=0, scale=1.0).replaces
    "a feedback weight stands for the readout's"
    """

    replaces: ClassVar[str] = "a feedback weight stands for the readout's"
    multi_step_problem: ClassVar[str] = (
        "use vjp_method='single-step': inside a window BPTT would follow the readout's weight and "
        "the traces B"
    )

    adaptive: bool
    seed: Seed
    scale: float
    decay: float = 0.0
    weights: tuple[ArrayLike, ...] | None = dataclasses.field(default=None, compare=False)

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        edges = by_edge(exits, ExitKind.READOUT)
        if not edges:
            raise CompilationError(
                "No readout that a feedback weight could replace was found.",
                expected="an output, or a leaky readout, fed by a product of the hidden "
                "activity with a weight",
                do="read the activity out with a linear layer inside the model, or use "
                "feedback='symmetric'",
            )
        replaced = [weight_of(editor.graph, edge) or _refuse_readout(edge[0]) for edge in edges]
        # by the fan-in, which is the first axis
        wanted = [
            (w.shape, w.dtype, self.scale / np.sqrt(max((1, *w.shape[:1])))) for w in replaced
        ]
        drawn = matrices(self.weights, self.seed, "feedback_weights", "readout", wanted)
        for (equation, k), w, b in zip(edges, replaced, drawn, strict=True):
            operation, [y] = equation.copy(), equation.outputs
            operation.inputs[1 - k] = self._weight(editor, w, b)
            equation.inputs[k] = editor.apply(sg, equation.inputs[k])
            editor.equations.append(operation)
            add = functools.partial(editor.apply, lambda b, y: y + (b - sg(b)), *operation.outputs)
            editor.replace(y, add)

    def _weight(self, editor: Editor, w: Atom, b: np.ndarray) -> Atom:
        if not self.adaptive:
            return Const(b)
        decayed = lambda e: sg(e) * (1 - self.decay)
        start = b.astype(wide(b.dtype))
        difference, _ = editor.add_state("feedback", start, decayed, shared=True)
        return editor.apply(lambda w, e: sg((w + e).astype(w.dtype)), w, difference)


def weight_of(graph: CellGraph, edge: Edge) -> Atom | None:
    """What the activity at `edge` is multiplied with, if it is a weight."""
    equation, k = edge
    if len(equation.inputs) != 2:
        return None
    w = equation.inputs[1 - k]
    is_known = isinstance(w, Const) or w in graph.prelude_results
    return w if is_known and site_rule(equation, 1 - k) is not None else None


def _refuse_readout(equation: Equation) -> NoReturn:
    raise CompilationError(
        "A readout is not a product of the hidden activity with a weight, so no feedback "
        "weight can replace it.",
        got=equation.name,
        expected="a linear readout (x @ w, a convolution)",
        do="use feedback='symmetric'",
        at=equation.source,
    )
