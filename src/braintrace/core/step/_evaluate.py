"""One step of a cell, evaluated for gradients: the signal evaluation, the local evaluation and zero
perturbations (both from one walk).

Values are the model's own in both evaluations; only `stop_gradient` and zero perturbations are
added.

* The **signal** evaluation is what the outputs and the new state of this call are read from. An
  entry reads the old state through `stop_gradient` but keeps its parameters and everything that
  came into being at this step. For a variable v on its way into an entry, E(v) is v itself if v
  does not depend on the old state, if v came after an entry and lies in a region, or if v is the
  new value of a state with a memory of its own (a presynaptic trace, say); the stopped leaf if v
  is a hidden leaf; and otherwise v's equation applied to E of its operands.
* The **local** evaluation is what the next step starts from: every mixing edge is stopped, so what
  is left is positional. Parameters act in it through sites only.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from ..analysis import CellGraph
from ..jaxpr import Atom, Equation, Var, evaluate, reader
from ._layered import apply_perturbed, layered_evaluations, remembering, with_perturbation

stop = jax.lax.stop_gradient


@dataclasses.dataclass(frozen=True)
class Step:
    """Results of one step, flat: the new carry of both evaluations, the outputs, and the data of
    each site's weight operation.
    """

    carry: list[Any]
    local: list[Any]
    outs: list[Any]
    data: list[list[Any]]


def prelude(graph: CellGraph, params: Sequence[Any]) -> list[Any]:
    """The parameter-only part of the cell: the values that its steps read. Evaluated once, pulled
    back once.
    """
    env = dict(zip(graph.params, params, strict=True))
    evaluate(graph.prelude, env)
    return [env[v] for v in graph.prelude_results]


def plain_step(
    graph: CellGraph, ready: Sequence[Any], carry: Sequence[Any], xs: Sequence[Any]
) -> tuple[list[Any], list[Any]]:
    """The step as the model defines it, with every path live: (new carry, outputs)."""
    env = dict(
        zip((*graph.prelude_results, *graph.carry, *graph.xs), (*ready, *carry, *xs), strict=True)
    )
    evaluate(graph.step, env)
    read = reader(env)
    return [read(v) for v in graph.new_carry], [read(v) for v in graph.outs]


def free_step(
    graph: CellGraph, ready: Sequence[Any], carry: Sequence[Any], xs: Sequence[Any]
) -> Step:
    """The step as the model defines it, in the form of `step`: over one window, its gradient is
    that of BPTT.

    Weights are live and no perturbation acts, so sites have nothing to add: their data are zeros.
    """
    new, outs = plain_step(graph, ready, carry, xs)
    data = [[jnp.zeros(v.shape, v.dtype) for v in site.data] for site in graph.sites]
    return Step(new, new, outs, data)


def step(
    graph: CellGraph,
    ready: Sequence[Any],
    carry: Sequence[Any],
    xs: Sequence[Any],
    perturbations: Sequence[Any] | None = None,
) -> Step:
    """Evaluate both evaluations. `ready` is the prelude's result.

    With `perturbations`, an array for each site, site weights are constants and the perturbation is
    added to the site's y, so that the derivative with respect to a perturbation is that with
    respect to y.
    """
    if graph.layers is not None:
        evaluations = layered_evaluations(
            graph, graph.layers, _environment(graph, ready, carry, xs), perturbations
        )
    else:
        walk = _Walk(graph, ready, carry, xs, perturbations)
        walk.run()
        evaluations = walk.signal, walk.local
    signal, local = reader(evaluations[0]), evaluations[1]
    new = [signal(v) for v in graph.new_carry]
    kept = [
        local[v] if isinstance(v, Var) and v in local else stop(n)
        for v, n in zip(graph.new_carry, new, strict=True)
    ]
    data = [[stop(signal(v)) for v in site.data] for site in graph.sites]
    return Step(new, kept, [signal(v) for v in graph.outs], data)


def _environment(
    graph: CellGraph, ready: Sequence[Any], carry: Sequence[Any], xs: Sequence[Any]
) -> dict[Var, Any]:
    env = dict(zip(graph.prelude_results, ready, strict=True))
    hidden = set(graph.hidden)
    env.update(
        {
            v: c if k in hidden else stop(c)
            for k, (v, c) in enumerate(zip(graph.carry, carry, strict=True))
        }
    )
    env.update(zip(graph.xs, xs, strict=True))
    return env


class _Walk:
    def __init__(
        self, graph: CellGraph, ready: Any, carry: Any, xs: Any, perturbations: Sequence[Any] | None
    ):
        self.graph = graph
        self.signal = _environment(graph, ready, carry, xs)
        self.local = {graph.carry[k]: carry[k] for k in graph.hidden}
        self.leaves = set(self.local)
        self.perturbations = perturbations
        self.sites = {site.edge: n for n, site in enumerate(graph.sites)}
        self.maker = {v: e for e in graph.step for v in e.outputs}
        self.remembering = remembering(graph)
        self.into: dict[Var, Any] = {}
        # results on the way from a weight operation to its y: in the local evaluation the weight
        # alone is live there
        self.chains = {e for s in graph.sites if s.chain for e in (s.equation, *s.chain)}
        self.chained = {
            v
            for s in graph.sites
            if s.chain
            for e in (s.equation, *s.chain[:-1])
            for v in e.outputs
        }

    def run(self) -> None:
        read = reader(self.signal)
        for e in self.graph.step:
            values = [
                self.entering(v) if self.mixes(e, k) else read(v) for k, v in enumerate(e.inputs)
            ]
            self.signal.update(self.apply(e, values))
            if any(v in self.graph.labels or v in self.chained for v in e.outputs):
                self.local.update(self.localised(e, read))

    def mixes(self, e: Equation, k: int) -> bool:
        return (e, k) in self.graph.mixing

    def localised(self, e: Equation, read: Callable[[Atom], Any]) -> dict[Var, Any]:
        """The results of `e` in the local evaluation. Where nothing local enters, the signal's own:
        both have one value.
        """
        numbers = range(len(e.inputs))
        sites = [self.graph.sites[n] for k in numbers if (n := self.sites.get((e, k))) is not None]
        perturbed = self.perturbations is not None and all(site.is_operation for site in sites)
        if any(self.is_local(e, k) for k in numbers) or (sites and not perturbed):
            return self.apply(
                e, [self.local_operand(e, k, v, read(v)) for k, v in enumerate(e.inputs)]
            )
        results = [stop(self.signal[v]) for v in e.outputs]
        return dict(
            zip(
                e.outputs,
                with_perturbation(self.graph, self.perturbations, e, results),
                strict=True,
            )
        )

    def is_local(self, e: Equation, k: int) -> bool:
        """Whether the operand carries a position's own state."""
        v = e.inputs[k]
        if e in self.chains:
            return v in self.chained
        return (
            (e, k) not in self.sites
            and isinstance(v, Var)
            and v in self.local
            and not self.mixes(e, k)
        )

    def local_operand(self, e: Equation, k: int, v: Atom, value: Any) -> Any:
        if (e, k) in self.sites:
            return value
        return self.local[v] if isinstance(v, Var) and self.is_local(e, k) else stop(value)

    def entering(self, v: Atom) -> Any:
        """E(v)."""
        if not isinstance(v, Var):
            return v.value
        if v in self.leaves:
            return stop(self.signal[v])
        came_now = v in self.remembering or (v in self.graph.after and v in self.graph.labels)
        if v not in self.graph.old or came_now:
            return self.signal[v]
        if v not in self.into:
            e = self.maker[v]
            self.into.update(self.apply(e, [self.entering(u) for u in e.inputs]))
        return self.into[v]

    def apply(self, e: Equation, values: list[Any]) -> dict[Var, Any]:
        """The results of `e`, with the perturbations of its sites."""
        return dict(
            zip(
                e.outputs,
                apply_perturbed(self.graph, self.sites, self.perturbations, e, values),
                strict=True,
            )
        )
