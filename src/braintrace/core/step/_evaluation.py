"""What the evaluations of a step share: equations applied with their sites' perturbations."""

from collections.abc import Mapping, Sequence

import jax
from jaxtyping import Array

from ..analysis import CellGraph
from ..jaxpr import Equation, Var

stop = jax.lax.stop_gradient

Values = Sequence[Array]  # of the leaves of a carry or of the inputs, say
Environment = dict[Var, Array]
Perturbations = Sequence[Array | None]  # of each site's y; None where another site's serves


class Evaluation:
    """The values of the variables of a step, `env`, which a subclass fills in the program's order.

    With `perturbations` site weights are constants, and each perturbation is added to its site's y.
    """

    def __init__(
        self, graph: CellGraph, env: Mapping[Var, Array], perturbations: Perturbations | None
    ):
        self.graph, self.env, self.perturbations = graph, dict(env), perturbations
        self.sites = {site.edge: n for n, site in enumerate(graph.sites)}
        self.maker = {v: e for e in graph.step for v in e.outputs}
        # the new values of states with a memory of their own
        self.remembering = {
            graph.new_carry[s.leaf]
            for g in graph.groups
            for k, s in enumerate(g.slots)
            if g.coupling[k, k]
        }

    def apply(self, e: Equation, values: Values) -> Environment:
        """The results of `e`, with the perturbations of its sites."""
        if self.perturbations is None:
            return dict(zip(e.outputs, e.bind(values), strict=True))
        values = list(values)
        for k in range(len(values)):
            if (n := self.sites.get((e, k))) is not None:
                values[k] = stop(values[k])
                if not self.graph.sites[n].is_operation:
                    values[k] = _plus(values[k], self.perturbations[n])
        return self.perturbed(e, e.bind(values))

    def perturbed(self, e: Equation, results: Values) -> Environment:
        """`results` of `e`, the y of weight operations with the perturbation of their sites."""
        if self.perturbations is not None:
            for site, perturbation in zip(self.graph.sites, self.perturbations, strict=True):
                if site.is_operation and site.end is e:
                    results = [_plus(results[0], perturbation), *results[1:]]
        return dict(zip(e.outputs, results, strict=True))


def _plus(value: Array, perturbation: Array | None) -> Array:
    return value if perturbation is None else value + perturbation.astype(value.dtype)
