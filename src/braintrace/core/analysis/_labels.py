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
from ..jaxpr import Atom, Equation, Var
from ..sites import site_rule
from ._dependence import Edge
from ._elements import Elements, Run, as_array
from ._influence import Map, influences
from ._positions import Positions
from ._sample import SampleProgram

_MAX_REPEATS = 64  # equations repeated for one step; beyond, an edge is mixing


@dataclasses.dataclass
class _Use:
    """One place where a variable hands its elements on: `source` elements (None: all, in order) go
    to positions of `target` elements.
    """

    edge: Edge | None
    source: np.ndarray | None
    target: Elements
    redirect: Callable[[Var], None]


@dataclasses.dataclass
class Labels:
    """`of[v]`: labels of v's elements (numbers of hidden elements, -1 for none). `operand[edge]`:
    of a prelude operand.
    """

    of: dict[Var, Elements]
    operand: dict[Edge, Elements]
    mixing: set[Edge]
    equations: list[Equation]
    outputs: list[Atom]
    copied: dict[Equation, Equation]  # of which equation of the program each is a copy
    # blocks read only at positions of their own block other than their own: delay lines
    shifted: set[int]
    clashing: set[int]  # blocks whose elements meet elements of the same block


def label(
    sample: SampleProgram, hidden: Sequence[tuple[int, Var, Elements]], positions: Positions
) -> Labels:
    """Label the program of one sample; `hidden` lists (number of the output, input variable,
    element numbers) for each hidden leaf.
    """
    return _Walk(sample, positions).run(hidden)


class _Walk:
    def __init__(self, sample: SampleProgram, positions: Positions):
        self.positions, self.deps = positions, sample.dependence
        program = sample.program
        copied = {
            Equation(e.primitive, list(e.inputs), e.outputs, e.params, e.source): e
            for e in program.equations
        }
        self.crossings = sample.crossings
        self.todo = list(copied)
        self.outputs = list(program.outputs)
        self.inputs = set(program.inputs)
        self.uses: dict[Var, list[_Use]] = defaultdict(list)
        self.result = Labels({}, {}, set(), [], [], copied, set(), set())
        self.repeats = 0

    def run(self, hidden: Sequence[tuple[int, Var, Elements]]) -> Labels:
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

    def _start(self, number: int, elements: Elements) -> None:
        out = self.outputs[number]
        if not isinstance(out, Var) or not self.deps.relevant(out):
            return
        if out in self.inputs:
            # a leaf handed on as it is: give the hand-over an equation, so that it can be an edge
            copy = Equation(P.copy_p, [out], [Var(out.shape, out.dtype)], {})
            self.todo.append(copy)
            out = self.outputs[number] = copy.outputs[0]

        def redirect(new: Var) -> None:
            self.outputs[number] = new

        self.uses[out].append(_Use(None, None, elements, redirect))

    def _place(self, labels: Elements | None, use: _Use, size: int) -> Elements | None:
        """`labels` (None: none yet) with those of `use`, or None when an element would get two
        positions.
        """
        if use.source is None and labels is None:
            return use.target
        if use.source is None and isinstance(labels, Run) and isinstance(use.target, Run):
            return labels if self.positions.join(labels, use.target) else None
        source = np.arange(size) if use.source is None else use.source
        target = as_array(use.target)
        new = np.full(size, -1) if labels is None else as_array(labels).copy()
        fresh = new[source] < 0
        new[source[fresh][::-1]] = target[fresh][::-1]
        placed = new[source]
        apart = placed != target
        if apart.any() and not self.positions.join(placed[apart], target[apart]):
            return None
        return labels if labels is not None and not fresh.any() else new

    def _resolve(self, equation: Equation) -> list[Equation]:
        """Label the results of `equation`; return the repetitions that uses at other positions
        need.
        """
        repeated = []
        for k, out in enumerate(equation.outputs):
            refused: list[_Use] = []
            for use in self.uses.pop(out, []):
                labels = self.result.of.get(out)
                placed = self._place(labels, use, out.size)
                if placed is not None:
                    self.result.of[out] = placed
                elif labels is not None and self.repeats < _MAX_REPEATS:
                    refused.append(use)
                elif use.edge is not None:
                    self._note_clash(labels, use, out.size)
                    self.result.mixing.add(use.edge)
            if refused:
                self.repeats += 1
                copy = equation.copy()
                self.result.copied[copy] = self.result.copied.get(equation, equation)
                for use in refused:
                    use.redirect(copy.outputs[k])
                self.uses[copy.outputs[k]] = refused
                repeated.append(copy)
        return repeated

    def _hand_on(self, equation: Equation) -> None:
        labels = [self.result.of.get(v) for v in equation.outputs]
        if all(found is None for found in labels):
            return
        origin = self.result.copied.get(equation, equation)
        asking = [k for k, v in enumerate(equation.inputs) if self._asks(equation, k, v)]
        found = influences(equation) if asking else []
        for k in asking:
            v, influence = equation.inputs[k], found[k]
            assert isinstance(v, Var)
            if influence is None or (origin, k) in self.crossings:
                self.result.mixing.add((equation, k))
                continue
            source, target = _handed_on(influence, labels, v.size)
            if target is not None:

                def redirect(new: Var, equation: Equation = equation, k: int = k) -> None:
                    equation.inputs[k] = new

                self._use(v, _Use((equation, k), source, target, redirect))

    def _asks(self, equation: Equation, k: int, v: Atom) -> bool:
        """Whether an operand gets labels; a weight's place is that of its operation's result."""
        if not isinstance(v, Var) or not v.differentiable or not self.deps.relevant(v):
            return False
        return v not in self.deps.prelude or site_rule(equation, k) is None

    def _use(self, v: Var, use: _Use) -> None:
        if v not in self.deps.prelude:
            self.uses[v].append(use)
            return
        assert use.edge is not None
        placed = self._place(None, use, v.size)
        if placed is None:
            self.result.mixing.add(use.edge)
        else:
            self.result.operand[use.edge] = placed

    def _resolve_input(self, variable: Var, elements: Elements) -> None:
        """The old state's elements are positions already: a use at another position is mixing."""
        own: set[int] = set()
        shifted: set[int] = set()
        for use in self.uses.pop(variable, []):
            blocks = self._own_blocks(elements, use)
            if self._place(elements, use, variable.size) is not None:
                own |= blocks
            else:
                assert use.edge is not None
                self.result.mixing.add(use.edge)
                shifted |= blocks
                self._note_clash(elements, use, variable.size)
        self.result.of[variable] = elements
        self.result.shifted |= shifted - own

    def _own_blocks(self, elements: Elements, use: _Use) -> set[int]:
        """The blocks of which elements go to elements of the same block."""
        if use.source is None and isinstance(elements, Run) and isinstance(use.target, Run):
            low, high = sorted((elements.start, use.target.start))
            shared = lambda b: max(b.start - low, 0) < min(b.start + b.size - high, elements.size)
            return {
                k for k in self.positions.blocks_of(elements) if shared(self.positions.block(k))
            }
        source = as_array(elements)
        source = source if use.source is None else source[use.source]
        target = as_array(use.target)
        owners = self.positions.owners(source), self.positions.owners(target)
        return set(np.unique(owners[1][owners[0] == owners[1]]).tolist())

    def _note_clash(self, labels: Elements | None, use: _Use, size: int) -> None:
        if labels is None:
            return
        here, there = as_array(labels), as_array(use.target)
        here = here if use.source is None else here[use.source]
        met = (here >= 0) & (here != there)
        self.result.clashing |= self.positions.blocks_of(there[met])


def _handed_on(
    influence: Sequence[Map], labels: Sequence[Elements | None], size: int
) -> tuple[np.ndarray | None, Elements | None]:
    """The elements of an operand that get labels (None: all, in order), and these labels."""
    reaching = [(m, labels[m.output]) for m in influence if labels[m.output] is not None]
    if len(reaching) == 1 and isinstance(run := reaching[0][1], Run):
        first = _run_from(reaching[0][0], size)
        if first is not None:
            return None, Run(run.start + first, size)
    sources, targets = [], []
    for m, reached in reaching:
        source, target = m.pairs(size)
        here = as_array(reached)[target]  # type: ignore[arg-type]
        valid = here >= 0
        sources.append(source[valid])
        targets.append(here[valid])
    if not sources or not (source := np.concatenate(sources)).size:
        return None, None
    return source, np.concatenate(targets)


def _run_from(m: Map, size: int) -> int | None:
    """The element of the result that the first of an operand goes to, where all follow in order."""
    if m.in_order:
        return 0
    source, target = m.pairs(size)
    if source.size != size or not size or (source != np.arange(size)).any():
        return None
    return int(target[0]) if (target == source + target[0]).all() else None
