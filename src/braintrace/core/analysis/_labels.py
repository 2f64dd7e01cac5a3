"""Position labels: for each element of a variable, the one position of the hidden state that it
influences without mixing.

A backward walk. It starts at the hidden outputs, whose elements label themselves, and hands labels
from the results of an equation to its operands along `influences`. An edge (an equation and one of
its operands) that cannot hand them on, because one element would get two positions, is *mixing*;
nothing is lost but that edge. Where one variable is used at two positions (`y + roll(y)`), the
equation that makes it is repeated, so that each use has a variable, and a label, of its own.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from .._compat import P
from ..jaxpr import Atom, Equation, Program, Var
from ._dependence import Dependence, Edge
from ._influence import influences
from ._positions import Positions

_MAX_REPEATS = 64  # equations repeated for one step; beyond, an edge is mixing


@dataclasses.dataclass
class _Use:
    """One place where a variable hands its elements on: `source` elements go to positions of
    `target` elements.
    """

    edge: Edge | None
    source: np.ndarray
    target: np.ndarray
    redirect: Callable[[Var], None]


@dataclasses.dataclass
class Labels:
    """`of[v]`: labels of v's elements (numbers of hidden elements, -1 for none). `operand[edge]`:
    of a prelude operand.
    """

    of: dict[Var, np.ndarray]
    operand: dict[Edge, np.ndarray]
    mixing: set[Edge]
    equations: list[Equation]
    outputs: list[Atom]
    shifted: set[
        int
    ]  # blocks read only at positions of their own block other than their own: delay lines
    clashing: set[int]  # blocks whose elements meet elements of the same block


def label(
    program: Program,
    hidden: Sequence[tuple[int, Var, np.ndarray]],
    positions: Positions,
    deps: Dependence,
) -> Labels:
    """Label `program`; `hidden` lists (number of the output, input variable, element numbers) for
    each hidden leaf.
    """
    walk = _Walk(program, positions, deps)
    return walk.run(hidden)


class _Walk:
    def __init__(self, program: Program, positions: Positions, deps: Dependence):
        self.positions, self.deps = positions, deps
        copies = {
            e: Equation(e.primitive, list(e.inputs), e.outputs, e.params, e.source)
            for e in program.equations
        }
        self.todo = list(copies.values())
        self.outputs = list(program.outputs)
        self.inputs = set(program.inputs)
        self.uses: dict[Var, list[_Use]] = defaultdict(list)
        self.result = Labels({}, {}, set(), [], [], set(), set())
        self.repeats = 0

    def run(self, hidden: Sequence[tuple[int, Var, np.ndarray]]) -> Labels:
        for number, _, elements in hidden:
            self._start(number, elements)
        done: list[Equation] = []
        for equation in reversed(self.todo):
            pending = [equation]
            while pending:
                current = pending.pop()
                pending += self._resolve(current)
                self._hand_on(current)
                done.append(current)
        for _, variable, elements in hidden:
            self._resolve_input(variable, elements)
        self.result.equations, self.result.outputs = done[::-1], self.outputs
        return self.result

    def _start(self, number: int, elements: np.ndarray) -> None:
        out = self.outputs[number]
        if not isinstance(out, Var) or not self.deps.relevant(out):
            return
        if (
            out in self.inputs
        ):  # a leaf handed on as it is: give the hand-over an equation, so that it can be an edge
            copy = Equation(P.copy_p, [out], [Var(out.shape, out.dtype)], {})
            self.todo.append(copy)
            out = self.outputs[number] = copy.outputs[0]

        def redirect(new: Var) -> None:
            self.outputs[number] = new

        self.uses[out].append(_Use(None, np.arange(out.size), elements, redirect))

    def _place(self, labels: np.ndarray, use: _Use) -> np.ndarray | None:
        """`labels` with those of `use`, or None when an element would get two positions."""
        new = labels.copy()
        fresh = labels[use.source] < 0
        new[use.source[fresh][::-1]] = use.target[fresh][::-1]
        placed = new[use.source]
        return new if self.positions.join(placed, use.target) else None

    def _resolve(self, equation: Equation) -> list[Equation]:
        """Label the results of `equation`; return the repetitions that uses at other positions
        need.
        """
        repeated = []
        for k, out in enumerate(equation.outputs):
            refused: list[_Use] = []
            for use in self.uses.pop(out, []):
                labels = self.result.of.get(out)
                placed = self._place(np.full(out.size, -1) if labels is None else labels, use)
                if placed is not None:
                    self.result.of[out] = placed
                elif labels is not None and self.repeats < _MAX_REPEATS:
                    refused.append(use)
                elif use.edge is not None:
                    self._note_clash(np.full(out.size, -1) if labels is None else labels, use)
                    self.result.mixing.add(use.edge)
            if refused:
                self.repeats += 1
                copy = equation.copy()
                for use in refused:
                    use.redirect(copy.outputs[k])
                self.uses[copy.outputs[k]] = refused
                repeated.append(copy)
        return repeated

    def _hand_on(self, equation: Equation) -> None:
        labels = [self.result.of.get(v) for v in equation.outputs]
        if all(found is None for found in labels):
            return
        for k, (v, influence) in enumerate(zip(equation.inputs, influences(equation), strict=True)):
            if not isinstance(v, Var) or not v.differentiable or not self.deps.relevant(v):
                continue
            if influence is None:
                self.result.mixing.add((equation, k))
                continue
            sources, targets = [], []
            for m in influence:
                if (found := labels[m.output]) is not None:
                    source, target = m.pairs(v.size)
                    valid = found[target] >= 0
                    sources.append(source[valid])
                    targets.append(found[target][valid])
            if sources and (source := np.concatenate(sources)).size:

                def redirect(new: Var, equation: Equation = equation, k: int = k) -> None:
                    equation.inputs[k] = new

                self._use(v, _Use((equation, k), source, np.concatenate(targets), redirect))

    def _use(self, v: Var, use: _Use) -> None:
        if v not in self.deps.prelude:
            self.uses[v].append(use)
            return
        assert use.edge is not None
        placed = self._place(np.full(v.size, -1), use)
        if placed is None:
            self.result.mixing.add(use.edge)
        else:
            self.result.operand[use.edge] = placed

    def _resolve_input(self, variable: Var, elements: np.ndarray) -> None:
        """The old state's elements are positions already: a use at another position is mixing."""
        block = self.positions.block
        own: set[int] = set()
        shifted: set[int] = set()
        for use in self.uses.pop(variable, []):
            same = block[elements[use.source]] == block[use.target]
            blocks = set(block[use.target[same]].tolist())
            if self._place(elements, use) is not None:
                own |= blocks
            else:
                assert use.edge is not None
                self.result.mixing.add(use.edge)
                shifted |= blocks
                self._note_clash(elements, use)
        self.result.of[variable] = elements
        self.result.shifted |= shifted - own

    def _note_clash(self, labels: np.ndarray, use: _Use) -> None:
        here, there = labels[use.source], use.target
        met = (here >= 0) & (here != there)
        self.result.clashing |= set(self.positions.block[there[met]].tolist())
