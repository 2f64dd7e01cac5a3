"""Sites: where a parameter meets data at a region of the step."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from .._compat import P
from ..jaxpr import Equation, Var
from ..sites import OperandRule, ScaleRule, chain_rule, site_rule
from ._dependence import Dependence, Edge, passes_derivative, reach
from ._elements import Elements
from ._graph import CellGraph, Site, new_leaves
from ._groups import Layout


@dataclasses.dataclass
class Region:
    """The step as sites see it: labels and layout of one sample, the equations of all. `find` adds
    the sites, the variables where mixing or a weight brings something into a region, and prelude
    operands without a site; it takes edges that have a site from `mixing`.
    """

    graph: CellGraph
    deps: Dependence
    operand: Mapping[Edge, Elements]
    layout: Layout
    mixing: set[Edge]
    untraced: set[Var]
    sites: list[Site] = dataclasses.field(default_factory=list)
    entries: set[Var] = dataclasses.field(default_factory=set)
    unsited: set[Edge] = dataclasses.field(default_factory=set)

    @functools.cached_property
    def positional(self) -> set[Var]:
        """What the state reaches without being mixed."""
        graph, prelude = self.graph, self.deps.prelude
        crossed = {(e, k) for e, k in self.mixing if e.inputs[k] not in prelude}
        old = [graph.carry[k] for k in graph.hidden]
        return reach(graph.program.equations, [*old, *graph.params], crossed)

    def find(self) -> None:
        """All sites."""
        labels, weights = self.graph.labels, self.deps.weights
        for e in self.graph.program.equations:
            if not any(v in labels for v in e.outputs):
                self._find_chained(e, weights(e))
                continue
            if any((e, k) in self.mixing for k in range(len(e.inputs))):
                self.entries.update(e.outputs)
            for k, v in weights(e):
                self._find((e, k), v)

    def _find(self, edge: Edge, v: Var) -> None:
        (equation, k), prelude = edge, self.deps.prelude
        self.mixing.discard(edge)
        rule = site_rule(equation, k)
        bound = rule is None or all(a in prelude for a in rule.structure if isinstance(a, Var))
        other = equation.inputs[1 - k] if equation.primitive is P.mul_p else None
        alone = rule is None and isinstance(other, Var)
        if alone and other not in self.positional and other not in prelude:
            # data: what it has of the state has been mixed
            rule = ScaleRule(equation, k)
        if operation := rule is not None:
            elements = self.graph.labels.get(equation.outputs[0])
        else:
            rule, elements = OperandRule(equation, k), self.operand.get(edge)
        traced, placed = v not in self.untraced, bound and elements is not None
        if operation and (placed or not traced):
            self.entries.update(equation.outputs)
        if traced and placed and elements is not None:
            self._add(Site(edge, rule, v, self.deps.of(v), (), operation), elements)
        else:
            self.unsited.add(edge)

    def _add(self, site: Site, elements: Elements) -> None:
        """Add a site with its places; `elements` are the labels of its y."""
        graph, axis = self.graph, self.graph.y_axis(site)
        reached = reach(graph.program.equations, site.end.outputs, self.mixing)
        shape = site.y.shape if axis is None else axis.sample_shape(site.y.shape)
        moved = {leaf for leaf, v in new_leaves(graph).items() if v in reached}
        places = self.layout.places(elements, shape, axis, moved)
        self.sites.append(dataclasses.replace(site, places=places))

    def _find_chained(self, equation: Equation, weights: Sequence[tuple[int, Var]]) -> None:
        """The site of a weight whose result reaches a region through linear operations alone, if
        `equation` has one.
        """
        graph, [end, *others], chain = self.graph, equation.outputs, []
        if others or end in self.deps.prelude or not weights:
            return
        while end not in graph.labels:
            derived = filter(passes_derivative, graph.program.equations)
            readers = [e for e in derived for v in e.inputs if v is end]
            if len(readers) != 1 or end in graph.program.outputs or len(readers[0].outputs) != 1:
                return
            chain += readers
            [end] = readers[0].outputs
        for k, v in weights:
            first = site_rule(equation, k) if v not in self.untraced else None
            rule = first and chain_rule(first, chain, self.deps.prelude)
            if rule is not None:
                site = Site((equation, k), rule, v, self.deps.of(v), (), True, tuple(chain))
                self._add(site, graph.labels[end])
