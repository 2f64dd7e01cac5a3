"""One step with the recurrence of each layer kept: what "exact within a layer" is evaluated with.

A layer is a set of state groups that feed each other. In the local evaluation of a layer its old
state is live along every path, mixing or not, and whatever belongs to another layer is stopped. In
the signal evaluation an entry reads the old state of other layers through `stop_gradient`, and its
own layer's live.
"""

from collections.abc import Sequence
from typing import Any

import jax

from ..analysis import CellGraph, LayerPlan
from ..jaxpr import Atom, Equation, Var, is_stop_trace, reader

stop = jax.lax.stop_gradient

_NOWHERE = -1  # the layer of an edge that no old state passes


def layered_evaluations(
    graph: CellGraph, plan: LayerPlan, env: dict[Var, Any], perturbations: Sequence[Any] | None
) -> tuple[dict[Var, Any], dict[Var, Any]]:
    """(signal evaluation, local evaluation of the new hidden leaves); `env` holds prelude, carry
    and inputs.
    """
    signal = _Evaluation(graph, plan, env, perturbations).signal()
    local: dict[Var, Any] = {}
    for layer in range(len(plan.layers)):
        values = _Evaluation(graph, plan, env, perturbations).local(layer, signal)
        for k in plan.leaves[layer]:
            out = graph.new_carry[k]
            if isinstance(out, Var) and out in values:
                local[out] = values[out]
    return signal, local


class _Evaluation:
    def __init__(
        self,
        graph: CellGraph,
        plan: LayerPlan,
        env: dict[Var, Any],
        perturbations: Sequence[Any] | None,
    ):
        self.graph, self.plan, self.perturbations = graph, plan, perturbations
        self.env = dict(env)
        self.sites = {site.edge: n for n, site in enumerate(graph.sites)}
        self.maker = {v: e for e in graph.step for v in e.outputs}
        self.remembering = remembering(graph)
        self.ready = set(graph.prelude_results)
        self.entered: dict[tuple[int, Var], Any] = {}

    def local(self, layer: int, signal: dict[Var, Any]) -> dict[Var, Any]:
        own = {self.graph.carry[k] for k in self.plan.leaves[layer]}
        for k in self.graph.hidden:
            if (v := self.graph.carry[k]) not in own:
                self.env[v] = stop(self.env[v])
        read = reader(self.env)
        for e in self.graph.step:
            values = [
                stop(read(v)) if self.is_stopped(e, k) else read(v) for k, v in enumerate(e.inputs)
            ]
            self.env.update(self.apply(e, values))
            for v in e.outputs:
                if (found := self.plan.layer_of.get(v)) is not None and found != layer:
                    self.env[v] = stop(signal[v])
        return self.env

    def is_stopped(self, e: Equation, k: int) -> bool:
        """Whether an operand is kept out of the traces: marked by the user, or a parameter's that
        has no site.
        """
        return is_stop_trace(e) or (e.inputs[k] in self.ready and (e, k) not in self.sites)

    def signal(self) -> dict[Var, Any]:
        read = reader(self.env)
        for e in self.graph.step:
            layer = next(
                (self.plan.layer_of[v] for v in e.outputs if v in self.plan.layer_of), None
            )
            layer = _NOWHERE if is_stop_trace(e) and layer is not None else layer
            mixes = [
                layer is not None and (e, k) in self.graph.mixing for k in range(len(e.inputs))
            ]
            values = [
                self.entering(v, layer) if m and layer is not None else read(v)
                for v, m in zip(e.inputs, mixes, strict=True)
            ]
            self.env.update(self.apply(e, values))
        return self.env

    def entering(self, v: Atom, layer: int) -> Any:
        """E(v) for an entry of `layer`: old leaves of other layers are stopped, what was made at
        this step is live.
        """
        if not isinstance(v, Var):
            return v.value
        if v in self.plan.leaf_layer:
            return self.env[v] if self.plan.leaf_layer[v] == layer else stop(self.env[v])
        came_now = v in self.plan.layer_of and (
            layer != _NOWHERE or v in self.remembering or v in self.graph.after
        )
        if v not in self.graph.old or came_now:
            return self.env[v]
        if (layer, v) not in self.entered:
            e = self.maker[v]
            found = self.apply(e, [self.entering(u, layer) for u in e.inputs])
            self.entered.update({(layer, o): value for o, value in found.items()})
        return self.entered[layer, v]

    def apply(self, e: Equation, values: list[Any]) -> dict[Var, Any]:
        return dict(
            zip(
                e.outputs,
                apply_perturbed(self.graph, self.sites, self.perturbations, e, values),
                strict=True,
            )
        )


def remembering(graph: CellGraph) -> set[Atom]:
    """The new values of states with a memory of their own."""
    return {
        graph.new_carry[s.leaf]
        for g in graph.groups
        for k, s in enumerate(g.slots)
        if g.coupling[k, k]
    }


def apply_perturbed(
    graph: CellGraph,
    sites: dict[tuple[Equation, int], int],
    perturbations: Sequence[Any] | None,
    e: Equation,
    values: list[Any],
) -> list[Any]:
    """The results of `e`; with perturbations, its site weights are constants and each perturbation
    is added to its site's y.
    """
    if perturbations is None:
        return e.bind(values)
    values = list(values)
    for k in range(len(values)):
        n = sites.get((e, k))
        if n is None:
            continue
        values[k] = stop(values[k])
        if not graph.sites[n].is_operation and perturbations[n] is not None:
            values[k] = values[k] + perturbations[n].astype(values[k].dtype)
    return with_perturbation(graph, perturbations, e, e.bind(values))


def with_perturbation(
    graph: CellGraph, perturbations: Sequence[Any] | None, e: Equation, results: list[Any]
) -> list[Any]:
    """The results of `e`, the y of weight operations with the perturbation of their sites."""
    for site, perturbation in zip(
        graph.sites, perturbations or (), strict=perturbations is not None
    ):
        if site.is_operation and site.end is e and perturbation is not None:
            results = [results[0] + perturbation.astype(results[0].dtype), *results[1:]]
    return results
