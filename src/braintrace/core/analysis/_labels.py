"""Position labels: for each element of a variable, the one position of the hidden state that it
influences without mixing.

A backward walk. It starts at the hidden outputs, whose elements label themselves, and hands labels
from the results of an equation to its operands along `influences`. An edge (an equation and one of
its operands) that cannot hand them on, because one element would get two positions, is *mixing*;
nothing is lost but that edge. Where one variable is used at two positions (`y + roll(y)`), the
equation that makes it is repeated, so that each use has a variable, and a label, of its own.
"""

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from ..jaxpr import Atom, Equation, Program, Var
from ..sites import site_rule
from ._batch import Batch
from ._dependence import Dependence, Edge
from ._elements import Elements, as_array
from ._maps import Map
from ._positions import Positions
from ._sample import OneSample

_MAX_REPEATS = 64  # equations repeated for one step; beyond, an edge is mixing


@dataclasses.dataclass
class _Use:
    """One place where a variable hands its elements on: `source` elements (None: all, in order) go
    to positions of `target` elements. It stands in `atoms` at `number`.
    """

    edge: Edge | None
    source: np.ndarray | None
    target: Elements
    atoms: list[Atom]
    number: int


@dataclasses.dataclass(frozen=True, eq=False)
class Known:
    """What is known of a step before its elements are labelled; `old` has the hidden leaves."""

    program: Program
    old: dict[int, Var]
    deps: Dependence
    batch: Batch | None

    @functools.cached_property
    def one(self) -> OneSample:
        """The step as one sample has it."""
        return OneSample(self.batch)


class Labels:
    """The walk over a step as it is for one sample, and what it finds: `of[v]`, the labels of v's
    elements (numbers of hidden elements, -1 for none), and `operand[edge]`, those of a prelude
    operand. `elements` numbers the elements of the hidden leaves.
    """

    def __init__(self, known: Known, elements: Mapping[int, Elements], positions: Positions):
        self.one, self.deps, self.positions = known.one, known.deps, positions
        self.crossings = known.batch.crossings if known.batch else ()
        self.of: dict[Var, Elements] = {}
        self.operand: dict[Edge, Elements] = {}
        self.mixing: set[Edge] = set()
        # blocks read only at positions of their own block other than their own: delay lines
        self.shifted: set[int] = set()
        self.clashing: set[int] = set()  # blocks whose elements meet elements of the same block
        self.outputs, self.equations = list(known.program.outputs), list[Equation]()
        self.copied = {  # of which equation of the program each is a copy
            Equation(e.primitive, list(e.inputs), e.outputs, e.params, e.source): e
            for e in known.program.equations
        }
        self.uses: dict[Var, list[_Use]] = defaultdict(list)
        self.repeats = 0
        for k, numbers in elements.items():
            if isinstance(out := self.outputs[k], Var) and self.deps.relevant(out):
                self.uses[out].append(_Use(None, None, numbers, self.outputs, k))
        for equation in reversed(list(self.copied)):
            pending = [equation]
            while pending:
                current = pending.pop()
                pending += self._resolve(current)
                self._hand_on(current)
                self.equations.append(current)
        for k, numbers in elements.items():
            self._resolve_input(known.old[k], numbers)
        self.equations.reverse()

    def _place(self, labels: Elements | None, use: _Use, size: int) -> Elements | None:
        """`labels` (None: none yet) with those of `use`, or None when an element would get two
        positions.
        """
        if use.source is None and labels is None:
            return use.target
        if use.source is None and isinstance(labels, range) and isinstance(use.target, range):
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
        origin = self.copied[equation]
        for k, out in enumerate(equation.outputs):
            refused: list[_Use] = []
            size = self.one.equation(origin).outputs[k].size
            for use in self.uses.pop(out, []):
                labels = self.of.get(out)
                placed = self._place(labels, use, size)
                if placed is not None:
                    self.of[out] = placed
                elif labels is not None and self.repeats < _MAX_REPEATS:
                    refused.append(use)
                elif use.edge is not None:
                    self._note_clash(labels, use)
                    self.mixing.add(use.edge)
            if refused:
                self.repeats += 1
                copy = equation.copy()
                self.copied[copy] = origin
                for use in refused:
                    use.atoms[use.number] = copy.outputs[k]
                self.uses[copy.outputs[k]] = refused
                repeated.append(copy)
        return repeated

    def _hand_on(self, equation: Equation) -> None:
        labels = [self.of.get(v) for v in equation.outputs]
        if all(found is None for found in labels):
            return
        origin = self.copied[equation]
        for k, v in enumerate(equation.inputs):
            if not isinstance(v, Var) or not self._asks(equation, k, v):
                continue
            influence = self.one.influences(origin)[k]
            if influence is None or (origin, k) in self.crossings:
                self.mixing.add((equation, k))
                continue
            size = self.one.equation(origin).inputs[k].size
            source, target = _handed_on(influence, labels, size)
            if target is not None:
                self._use(v, _Use((equation, k), source, target, equation.inputs, k), size)

    def _asks(self, equation: Equation, k: int, v: Var) -> bool:
        """Whether an operand gets labels; a weight's place is that of its operation's result."""
        moves = v.differentiable and self.deps.relevant(v)
        return moves and (v not in self.deps.prelude or site_rule(equation, k) is None)

    def _use(self, v: Var, use: _Use, size: int) -> None:
        if v not in self.deps.prelude:
            self.uses[v].append(use)
            return
        assert use.edge is not None
        placed = self._place(None, use, size)
        if placed is None:
            self.mixing.add(use.edge)
        else:
            self.operand[use.edge] = placed

    def _resolve_input(self, variable: Var, elements: Elements) -> None:
        """The old state's elements are positions already: a use at another position is mixing."""
        own: set[int] = set()
        shifted: set[int] = set()
        for use in self.uses.pop(variable, []):
            blocks = self._own_blocks(elements, use)
            if self._place(elements, use, len(elements)) is not None:
                own |= blocks
            else:
                assert use.edge is not None
                self.mixing.add(use.edge)
                shifted |= blocks
                self._note_clash(elements, use)
        self.of[variable] = elements
        self.shifted |= shifted - own

    def _own_blocks(self, elements: Elements, use: _Use) -> set[int]:
        """The blocks of which elements go to elements of the same block."""
        if use.source is None and isinstance(elements, range) and isinstance(use.target, range):
            low, high = sorted((elements.start, use.target.start))
            shared = lambda b: max(b.start - low, 0) < min(b.stop - high, len(elements))
            blocks = self.positions.blocks_of(elements)
            return {k for k in blocks if shared(self.positions.blocks[k])}
        source = as_array(elements)
        source = source if use.source is None else source[use.source]
        target = as_array(use.target)
        owners = self.positions.owners(source), self.positions.owners(target)
        return set(np.unique(owners[1][owners[0] == owners[1]]).tolist())

    def _note_clash(self, labels: Elements | None, use: _Use) -> None:
        if labels is None:
            return
        here, there = as_array(labels), as_array(use.target)
        here = here if use.source is None else here[use.source]
        met = (here >= 0) & (here != there)
        self.clashing |= self.positions.blocks_of(there[met])


def _handed_on(
    influence: Sequence[Map], labels: Sequence[Elements | None], size: int
) -> tuple[np.ndarray | None, Elements | None]:
    """The elements of an operand that get labels (None: all, in order), and these labels."""
    reaching = [(m, labels[m.output]) for m in influence if labels[m.output] is not None]
    if len(reaching) == 1 and isinstance(run := reaching[0][1], range):
        first = _run_from(reaching[0][0], size)
        if first is not None:
            return None, range(run.start + first, run.start + first + size)
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
