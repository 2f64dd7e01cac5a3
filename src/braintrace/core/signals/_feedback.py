"""A feedback weight in the place of the readout's own, in the backward pass."""

import dataclasses
import functools
from collections.abc import Collection
from typing import ClassVar

import numpy as np
from jaxtyping import ArrayLike

from .._errors import CompilationError
from ..analysis import CellGraph, Exit, ExitKind
from ..jaxpr import Atom, Const, Equation, Var
from ..sites import site_rule
from ._editor import Edit, Editor, by_edge, read_out, sg
from ._matrices import Seed, matrices


@dataclasses.dataclass(frozen=True)
class Feedback(Edit):
    """A feedback weight B in the backward pass of each readout: `y = W sg(z) + (B z - sg(B z))`.

    Random: B is drawn once, N(0, 1) scale / sqrt(fan-in). Adaptive (Kolen-Pollack): B and W get the
    same increments and both decay, so B - W decays by itself: B = sg(W) + E with `E <- (1 - decay)
    E`, which needs no increment to be observed. B has the shape and the dtype of W, complex ones
    included, also where z joins the activities of several groups.
    """

    replaces: ClassVar[str] = "a feedback weight stands for the readout's"

    adaptive: bool
    seed: Seed
    scale: float
    decay: float = 0.0
    weights: tuple[ArrayLike, ...] | None = dataclasses.field(default=None, compare=False)

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return read_out(exits)

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
        replaced = [_weight_of(*edge, editor) for edge in edges]
        fan_in = [max(w.shape[0] if w.shape else 1, 1) for w in replaced]
        wanted = [
            (w.shape, w.dtype, self.scale / np.sqrt(n))
            for w, n in zip(replaced, fan_in, strict=True)
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
