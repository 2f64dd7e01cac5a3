"""Sites: where a parameter meets data at a region of the step."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence, Set

from .._compat import P
from ..jaxpr import Atom, Equation, Var
from ..sites import OperandRule, ScaleRule, SiteRule, chain_rule, site_rule
from ._batch import Batch
from ._batch_axis import BatchAxis
from ._dependence import Dependence, Edge, reach
from ._elements import Elements
from ._graph import Place, Site
from ._groups import Layout


@dataclasses.dataclass
class Sites:
    """What was found: the sites, the variables where mixing or a weight brings something into a
    region, prelude operands without a site, and the mixing edges that are left.
    """

    sites: list[Site]
    entries: set[Var]
    unsited: set[Edge]
    mixing: set[Edge]


@dataclasses.dataclass(frozen=True)
class Region:
    """The step as sites see it: labels and layout of one sample, the equations of all."""

    equations: Sequence[Equation]
    outputs: Sequence[Atom]
    labels: Mapping[Var, Elements]
    operand: Mapping[Edge, Elements]
    deps: Dependence
    layout: Layout
    batch: Batch | None
    new: Mapping[int, Var]
    untraced: Collection[Var]

    def find(self, mixing: Set[Edge], positional: Set[Var]) -> Sites:
        """All sites; `positional` holds what the state reaches without being mixed."""
        found = Sites([], set(), set(), set(mixing))
        for e in self.equations:
            if not any(v in self.labels for v in e.outputs):
                found.sites += self._chained(e, found.mixing)
                continue
            if any((e, k) in found.mixing for k in range(len(e.inputs))):
                found.entries.update(e.outputs)
            for k, v in enumerate(e.inputs):
                if isinstance(v, Var) and v in self.deps.prelude and self.deps.of(v):
                    self._add((e, k), v, positional, found)
        return found

    def _add(self, edge: Edge, v: Var, positional: Set[Var], found: Sites) -> None:
        equation, k = edge
        rule, operation, elements = self._rule(equation, k, positional)
        found.mixing.discard(edge)
        if v in self.untraced:
            found.entries.update(equation.outputs if operation else ())
            rule = None
        if rule is None or elements is None:
            found.unsited.add(edge)
            return
        if operation:
            found.entries.update(equation.outputs)
        y = equation.outputs[0] if operation else v
        axis = None
        if self.batch is not None:
            axis = self.batch.axes.get(y) if operation else self.batch.operand(equation, k)
        start = [y] if operation else equation.outputs
        places = self._places(y, axis, elements, reach(self.equations, start, found.mixing))
        found.sites.append(Site(edge, rule, v, self.deps.of(v), places, operation))

    def _places(
        self, y: Var, axis: BatchAxis | None, elements: Elements, reached: Set[Var]
    ) -> tuple[Place, ...]:
        shape = y.shape if axis is None else axis.sample_shape(y.shape)
        return self.layout.places(elements, shape, axis, reached, self.new)

    def _rule(
        self, equation: Equation, operand: int, positional: Set[Var]
    ) -> tuple[SiteRule | None, bool, Elements | None]:
        """The rule of a parameter operand, whether it is a weight operation, and the labels of its
        y.
        """
        prelude = self.deps.prelude
        of_result = self.labels.get(equation.outputs[0])
        if (rule := site_rule(equation, operand)) is not None:
            if any(isinstance(v, Var) and v not in prelude for v in rule.structure):
                return None, True, None
            return rule, True, of_result
        other = equation.inputs[1 - operand] if equation.primitive is P.mul_p else None
        if isinstance(other, Var) and other not in positional and other not in prelude:
            # data: what it has of the state has been mixed
            return ScaleRule(equation, operand), True, of_result
        return OperandRule(equation, operand), False, self.operand.get((equation, operand))

    def _chained(self, equation: Equation, mixing: Set[Edge]) -> list[Site]:
        """The site of a weight whose result reaches a region through linear operations alone, if
        `equation` has one.
        """
        deps, chain = self.deps, []
        if (
            len(equation.outputs) != 1
            or any(v in deps.prelude for v in equation.outputs)
            or not any(deps.of(v) for v in equation.inputs if v in deps.prelude)
        ):
            return []
        while (end := (chain[-1] if chain else equation).outputs[0]) not in self.labels:
            readers = [e for e in self.equations for v in e.inputs if v is end]
            if len(readers) != 1 or end in self.outputs or len(readers[0].outputs) != 1:
                return []
            chain += readers
        axis = None if self.batch is None else self.batch.axes.get(end)
        reached = reach(self.equations, [end], mixing)
        places = self._places(end, axis, self.labels[end], reached)
        sites = []
        for k, v in enumerate(equation.inputs):
            if not isinstance(v, Var) or v not in deps.prelude or not deps.of(v):
                continue
            first = site_rule(equation, k)
            if first is None or v in self.untraced:
                continue
            if (rule := chain_rule(first, chain, deps.prelude)) is not None:
                sites.append(Site((equation, k), rule, v, deps.of(v), places, True, tuple(chain)))
        return sites
