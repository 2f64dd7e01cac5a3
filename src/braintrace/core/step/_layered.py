"""One step with the recurrence of each layer kept: what "exact within a layer" is evaluated with.

A layer is a set of state groups that feed each other. In the local evaluation of a layer its old
state is live along every path, mixing or not, and whatever belongs to another layer is stopped. In
the signal evaluation an entry reads the old state of other layers through `stop_gradient`, and its
own layer's live.
"""

from jaxtyping import Array

from ..analysis import CellGraph, LayerPlan
from ..jaxpr import Atom, Equation, Var, is_stop_trace, reader
from ._evaluation import Environment, Evaluation, Perturbations, stop

_NOWHERE = -1  # the layer of an edge that no old state passes


def layered_evaluations(
    graph: CellGraph, plan: LayerPlan, env: Environment, perturbations: Perturbations | None
) -> tuple[Environment, Environment]:
    """(signal evaluation, local evaluation of the new hidden leaves); `env` holds prelude, carry
    and inputs.
    """
    signal = _Layered(graph, plan, env, perturbations).signal()
    local: Environment = {}
    for layer, leaves in enumerate(plan.leaves):
        values = _Layered(graph, plan, env, perturbations).local(layer, signal)
        new = [graph.new_carry[k] for k in leaves]
        local.update({v: values[v] for v in new if isinstance(v, Var) and v in values})
    return signal, local


class _Layered(Evaluation):
    def __init__(
        self,
        graph: CellGraph,
        plan: LayerPlan,
        env: Environment,
        perturbations: Perturbations | None,
    ):
        super().__init__(graph, env, perturbations)
        self.plan = plan
        self.ready = set(graph.prelude_results)
        self.entered: dict[tuple[int, Var], Array] = {}

    def local(self, layer: int, signal: Environment) -> Environment:
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
                if (owner := self.plan.layer_of.get(v)) is not None and owner != layer:
                    self.env[v] = stop(signal[v])
        return self.env

    def is_stopped(self, e: Equation, k: int) -> bool:
        """Whether an operand is kept out of the traces: marked by the user, or a parameter's that
        has no site.
        """
        return is_stop_trace(e) or (e.inputs[k] in self.ready and (e, k) not in self.sites)

    def signal(self) -> Environment:
        read = reader(self.env)
        for e in self.graph.step:
            layer = next(
                (self.plan.layer_of[v] for v in e.outputs if v in self.plan.layer_of), None
            )
            layer = _NOWHERE if is_stop_trace(e) and layer is not None else layer
            values = [
                self.entering(v, layer)
                if layer is not None and (e, k) in self.graph.mixing
                else read(v)
                for k, v in enumerate(e.inputs)
            ]
            self.env.update(self.apply(e, values))
        return self.env

    def entering(self, v: Atom, layer: int) -> Array:
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
            made = self.apply(e, [self.entering(u, layer) for u in e.inputs])
            self.entered.update({(layer, out): value for out, value in made.items()})
        return self.entered[layer, v]
