"""A constant leak in the place of the neuron's own dynamics, as an edit of the cell's program."""

import dataclasses
from typing import Any, ClassVar

import jax

from ..analysis import Exit, reach
from ..jaxpr import Equation, Var
from ._editor import Edit, Editor

sg = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class ScalarLeak(Edit):
    """`dh^t/dh^{t-1}` becomes `leak I`: old states are read through `sg`, and `h' <- h' + leak (h -
    sg(h))`.

    No value changes. The readers of h' outside its own group see the leaking one, so that dL_t/dh_t
    reaches the trace; inside the group h' stays as it is, so that no other derivative of an old
    state is left.
    """

    replaces: ClassVar[str] = "a constant leak stands for the neuron's dynamics"

    leak: float

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        graph = editor.graph
        old = {k: editor.carry[k] for k in graph.hidden}
        new = {
            k: v
            for k in graph.hidden
            if isinstance(v := editor.new_carry[k], Var) and v is not old[k]
        }
        inside = [e for e in editor.equations if self._stays(editor, e, set(new.values()))]
        for k, leaf in old.items():
            readers = [e for e in editor.equations if leaf in e.inputs]
            if readers:
                stopped = editor.apply(sg, leaf)
                for e in readers:
                    e.inputs = [stopped if v is leaf else v for v in e.inputs]
            if k in new:
                editor.replace(
                    new[k], lambda h, leaf=leaf: editor.apply(self._leaking, h, leaf), inside
                )

    def _leaking(self, new: Any, old: Any) -> Any:
        return new + self.leak * (old - sg(old)).astype(new.dtype)

    @staticmethod
    def _stays(editor: Editor, equation: Equation, new: set[Var]) -> bool:
        """Whether an equation takes part in making a new state, without mixing."""
        mixing = editor.graph.mixing
        if any((equation, k) in mixing for k in range(len(equation.inputs))):
            return False
        return bool(reach(editor.equations, equation.outputs, mixing) & new) or any(
            v in new for v in equation.outputs
        )
