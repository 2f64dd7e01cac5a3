"""A feedback weight in the place of the readout's own, in the backward pass."""

import dataclasses
import functools
from collections.abc import Collection
from typing import ClassVar

import numpy as np
from jaxtyping import ArrayLike

from .._errors import CompilationError
from ..analysis import CellGraph, Exit
from ..jaxpr import Atom, Const, Equation, Var
from ..sites import site_rule
from ._editor import READOUT, Edit, Editor, by_edge, sg
from ._matrices import Seed, check_number, matrix


@dataclasses.dataclass(frozen=True)
class Feedback(Edit):
    """A feedback weight B in the backward pass of each readout: `y = W sg(z) + (B z - sg(B z))`.

    Random: B is drawn once, N(0, 1) scale / sqrt(fan-in). Adaptive (Kolen-Pollack): B and W get the
    same increments and both decay, so B - W decays by itself: B = sg(W) + E with `E <- (1 - decay)
    E`, which needs no increment to be observed. B has the shape and the dtype of W, complex ones
    included, also where z joins the activities of several groups.
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

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return {x.variable for [x, *_] in by_edge(exits, READOUT).values()}

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        edges = by_edge(exits, READOUT)
        if not edges:
            raise CompilationError(
                "No readout that a feedback weight could replace was found.",
                expected="an output, or a leaky readout, fed by a product of the hidden "
                "activity with a weight",
                do="read the activity out with a linear layer inside the model, or use "
                "feedback='symmetric'",
            )
        check_number(self.weights, len(edges), "feedback_weights", "readout")
        for number, edge in enumerate(edges):
            equation, k = edge
            w = _weight_of(equation, k, editor)
            z = equation.inputs[k]
            operation = equation.copy()
            operation.inputs[1 - k] = self._weight(editor, w, number)
            editor.redirect(edge, editor.apply(sg, z))
            editor.equations.append(operation)
            y, feedback = equation.outputs[0], operation.outputs[0]
            add = functools.partial(editor.apply, lambda y, b: y + (b - sg(b)))
            editor.replace(y, lambda y, add=add, feedback=feedback: add(y, feedback))

    def _weight(self, editor: Editor, w: Atom, number: int) -> Atom:
        scale = self.scale / np.sqrt(max(w.shape[0] if w.shape else 1, 1))
        of_option = (self.weights, self.seed, scale, "feedback_weights")
        b = matrix(*of_option, number, w.shape, w.dtype)
        if not self.adaptive:
            return editor.constant(b)
        leaf = editor.add_leaf("feedback", b, inert=True, shared=True)
        editor.set_leaf(leaf, editor.apply(lambda e: sg(e) * (1 - self.decay), leaf))
        return editor.apply(lambda w, e: sg(w) + sg(e), w, leaf)


def _weight_of(equation: Equation, k: int, editor: Editor) -> Atom:
    if len(equation.inputs) == 2:
        w = equation.inputs[1 - k]
        known = isinstance(w, Const) or w in editor.graph.prelude_results
        if known and site_rule(equation, 1 - k) is not None:
            return w
    raise CompilationError(
        "A readout is not a product of the hidden activity with a weight, so no feedback "
        "weight can replace it.",
        got=equation.name,
        expected="a linear readout (x @ w, a convolution)",
        do="use feedback='symmetric'",
        at=equation.source,
    )
