"""A constant leak in the place of the neuron's own dynamics, as an edit of the cell's program."""

import dataclasses
from collections.abc import Collection
from typing import ClassVar

import jax
from jaxtyping import Array

from .._compat import P, Primitive
from .._errors import CompilationError
from .._precision import wide
from ..analysis import CellGraph, Exit, reach
from ..jaxpr import Atom, Equation, Var, makers
from ._editor import TO_OTHERS, Edit, Editor, sg


@dataclasses.dataclass(frozen=True)
class ScalarLeak(Edit):
    """`dh^t/dh^{t-1}` becomes `leak I`: old states are read through `sg`, and `h' <- h' + leak (h -
    sg(h))`.

    No value changes. The readers of h' outside its own group see the leaking one, so that dL_t/dh_t
    reaches the trace; inside the group h' stays as it is, so that no other derivative of an old
    state is left. What others read of a group must be made of its new state.

    >>> from braintrace import rules
    >>> rules.ScalarLeak(0.9).leak
    0.9
    """

    replaces: ClassVar[str] = "a constant leak stands for the neuron's dynamics"

    leak: float

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return [v for k in graph.hidden if isinstance(v := graph.new_carry[k], Var)]

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        graph = editor.graph
        old = {k: editor.carry[k] for k in graph.hidden}
        new = {
            k: v
            for k in graph.hidden
            if isinstance(v := editor.new_carry[k], Var) and v is not old[k]
        }
        wholes = _complex_wholes(editor, new)
        ends = {*new.values(), *wholes}
        inside = _inside(editor, ends)
        _check_read(editor, exits, list(old.values()), ends)
        for k, leaf in old.items():
            held = _stop_readers(editor, k, leaf)
            if k in new:
                made: list[Atom] = []

                def leaking(h: Var, held: Var = held, made: list[Atom] = made) -> Atom:
                    made.append(editor.apply(self._leaking, h, held))
                    return _in_dtype_of(editor, made[0], h)

                editor.replace(new[k], leaking, inside)
                editor.new_carry[k] = made[0]
        for whole, leaves in wholes.items():
            parts = [editor.new_carry[k] for k in leaves]
            editor.replace(
                whole, lambda _, parts=parts: editor.apply(jax.lax.complex, *parts), inside
            )

    def _leaking(self, new: Array, old: Array) -> Array:
        return new.astype(old.dtype) + self.leak * (old - sg(old))


def _stop_readers(editor: Editor, k: int, leaf: Var) -> Var:
    """Let the leaf k be read through `sg`; the leaf that leaks. One in half precision becomes a
    wide one, in which a leak of 0.999 is none of 1.
    """
    if wide(leaf.dtype) == leaf.dtype:
        editor.replace(leaf, editor.stopped, results=False)
        return leaf
    held = editor.carry[k] = Var(leaf.shape, wide(leaf.dtype))
    same = editor.new_carry[k] is leaf
    editor.replace(leaf, lambda old: _in_dtype_of(editor, editor.stopped(held), old))
    if same:
        editor.new_carry[k] = held
    return held


def _in_dtype_of(editor: Editor, value: Atom, like: Var) -> Atom:
    cast = lambda v: v.astype(like.dtype)
    return value if value.dtype == like.dtype else editor.apply(cast, value)


def _inside(editor: Editor, ends: set[Var]) -> list[Equation]:
    """The equations that take part in making a new state, without mixing."""
    mixing = editor.graph.mixing
    mixes = {e for e, _ in mixing}
    return [
        e
        for e in editor.equations
        if e not in mixes and reach(editor.equations, e.outputs, mixing) & ends
    ]


def _complex_wholes(editor: Editor, new: dict[int, Var]) -> dict[Var, list[int]]:
    """The complex new states, with the leaves that hold their real and their imaginary part."""
    maker = makers(editor.equations)
    found: dict[Atom, dict[Primitive, int]] = {}
    for k, v in new.items():
        e = maker.get(v)
        if e is not None and e.primitive in (P.real_p, P.imag_p):
            found.setdefault(e.inputs[0], {})[e.primitive] = k
    return {
        whole: [leaves[P.real_p], leaves[P.imag_p]]
        for whole, leaves in found.items()
        if isinstance(whole, Var) and len(leaves) == 2
    }


def _check_read(editor: Editor, exits: list[Exit], old: list[Var], ends: Collection[Var]) -> None:
    """Nothing may be read of an old state but through a new one."""
    graph = editor.graph
    passed = {(e, k) for e in graph.step for k, v in enumerate(e.inputs) if v in ends}
    around = reach(graph.step, old, passed | graph.mixing) - set(ends)
    read = [x for x in exits if x.kind in TO_OTHERS and (x.variable in graph.after or not x.feeds)]
    sources = [x.edge[0].source for x in read if x.variable in around]
    sources += ["" for v in editor.outs if v in around]
    if sources:
        raise CompilationError(
            "A constant leak cannot stand for the dynamics: what is read of a state is not "
            "made of its new value.",
            expected="a readout of the state that the step returns",
            do="use recursion 'jacobian', or read the state after the reset",
            at=sources[0],
        )
