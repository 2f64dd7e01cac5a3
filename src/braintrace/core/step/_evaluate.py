"""One step of a cell, evaluated for gradients: the signal evaluation, the local evaluation and zero
perturbations.

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

With layers ("exact within a layer"; a layer is a set of state groups that feed each other) the
recurrence of each is kept. In the local evaluation of a layer its old state is live along every
path, mixing or not, and whatever belongs to another layer is stopped. In the signal evaluation an
entry reads the old state of other layers through `stop_gradient`, and its own layer's live.

With `one_hop` every entry of the signal evaluation reads the old state live, but for edges that are
marked not to be passed; the local evaluation stays positional.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..analysis import CellGraph, LayerPlan
from ..jaxpr import Atom, Equation, Var, evaluate, is_stop_trace, makers, reader, variables

stop = jax.lax.stop_gradient

Values = Sequence[Array]  # of the leaves of a carry or of the inputs, say
Environment = dict[Var, Array]
Perturbations = Sequence[Array | None]  # of each site's y; None where another site's serves

_NOWHERE = -1  # the layer of an edge that no old state passes


class Step(NamedTuple):
    """Results of one step, flat: the new carry of both evaluations, the outputs, and the data of
    each site's weight operation.
    """

    carry: list[Array]
    local: list[Array]
    outs: list[Array]
    data: list[list[Array]]


def hidden_part(graph: CellGraph, carry: Values) -> list[Array]:
    """The hidden leaves of a carry."""
    return [carry[k] for k in graph.hidden]


def with_hidden(graph: CellGraph, carry: Values, hidden: Values) -> list[Array]:
    """`carry` with its hidden leaves replaced."""
    replaced = dict(zip(graph.hidden, hidden, strict=True))
    return [replaced.get(k, c) for k, c in enumerate(carry)]


def prelude(graph: CellGraph, params: Values) -> list[Array]:
    """The parameter-only part of the cell: the values that its steps read. Evaluated once, pulled
    back once.
    """
    env = dict(zip(graph.params, params, strict=True))
    evaluate(graph.prelude, env)
    return [env[v] for v in graph.prelude_results]


def _environment(graph: CellGraph, ready: Values, carry: Values, xs: Values) -> Environment:
    variables = (*graph.prelude_results, *graph.carry, *graph.xs)
    return dict(zip(variables, (*ready, *carry, *xs), strict=True))


def plain_step(
    graph: CellGraph, ready: Values, carry: Values, xs: Values
) -> tuple[list[Array], list[Array]]:
    """The step as the model defines it, with every path live: (new carry, outputs)."""
    env = _environment(graph, ready, carry, xs)
    evaluate(graph.step, env)
    read = reader(env)
    return [read(v) for v in graph.new_carry], [read(v) for v in graph.outs]


def free_step(graph: CellGraph, ready: Values, carry: Values, xs: Values) -> Step:
    """The step as the model defines it, in the form of `step`: over one window, its gradient is
    that of BPTT.

    Weights are live and no perturbation acts, so sites have nothing to add: their data are zeros.
    """
    new, outs = plain_step(graph, ready, carry, xs)
    data = [[jnp.zeros(v.shape, v.dtype) for v in site.data] for site in graph.sites]
    return Step(new, new, outs, data)


def step(
    graph: CellGraph,
    ready: Values,
    carry: Values,
    xs: Values,
    perturbations: Perturbations | None = None,
) -> Step:
    """Evaluate both evaluations. `ready` is the prelude's result.

    With `perturbations`, an array for each site, site weights are constants and the perturbation is
    added to the site's y, so that the derivative with respect to a perturbation is that with
    respect to y.
    """
    hidden = set(graph.hidden)
    start = [c if k in hidden else stop(c) for k, c in enumerate(carry)]
    env = _environment(graph, ready, start, xs)
    evaluation = _Evaluation(graph, env, perturbations)
    signal, local = reader(evaluation.signal()), evaluation.local()
    new = [signal(v) for v in graph.new_carry]
    kept = [
        local[v] if isinstance(v, Var) and v in local else stop(n)
        for v, n in zip(graph.new_carry, new, strict=True)
    ]
    data = [[stop(signal(v)) for v in site.data] for site in graph.sites]
    return Step(new, kept, [signal(v) for v in graph.outs], data)


class _Evaluation:
    """`env` holds prelude, carry and inputs, and gets the values of the signal evaluation.

    With `perturbations` site weights are constants, and each perturbation is added to its site's y.
    """

    def __init__(self, graph: CellGraph, env: Environment, perturbations: Perturbations | None):
        self.graph, self.env, self.perturbations = graph, env, perturbations
        self.sites = {site.edge: n for n, site in enumerate(graph.sites)}
        self.maker = makers(graph.step)
        # the new values of states with a memory of their own
        self.remembering = {
            graph.new_carry[s.leaf]
            for g in graph.groups
            for k, s in enumerate(g.slots)
            if g.coupling[k, k]
        }
        if plan := graph.layers:
            self.leaf_layer, self.layer_of = plan.leaf_layer, plan.layer_of
        else:
            self.leaf_layer = {graph.carry[k]: 0 for k in graph.hidden}
            self.layer_of = dict.fromkeys(graph.labels, _NOWHERE)
        self.entered: dict[tuple[int, Atom], Array] = {}

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

    def signal(self) -> Environment:
        """The signal evaluation."""
        read, layer_of = reader(self.env), self.layer_of
        for e in self.graph.step:
            layer = next((layer_of[v] for v in e.outputs if v in layer_of), _NOWHERE)
            layer = _NOWHERE if is_stop_trace(e) else layer
            is_live = self.graph.one_hop and not is_stop_trace(e)
            values = [
                read(v) if is_live or (e, k) not in self.graph.mixing else self.entering(v, layer)
                for k, v in enumerate(e.inputs)
            ]
            self.env.update(self.apply(e, values))
        return self.env

    def entering(self, v: Atom, layer: int) -> Array:
        """E(v) for an entry of `layer`."""
        if not isinstance(v, Var):
            return v.value
        if v in self.leaf_layer:
            return self.env[v] if self.leaf_layer[v] == layer else stop(self.env[v])
        came_now = v in self.layer_of and (
            layer != _NOWHERE or v in self.remembering or v in self.graph.after
        )
        if v not in self.graph.old or came_now:
            return self.env[v]
        if (layer, v) not in self.entered:
            e = self.maker[v]
            made = self.apply(e, [self.entering(u, layer) for u in e.inputs])
            self.entered.update({(layer, out): value for out, value in made.items()})
        return self.entered[layer, v]

    def local(self) -> Environment:
        """The local evaluation, after the signal's: of new hidden leaves at least."""
        plan = self.graph.layers
        if plan is None:
            return self._by_position()
        found = [self._within(plan, layer) for layer in range(len(plan.leaves))]
        return {v: value for of_layer in found for v, value in of_layer.items()}

    def _by_position(self) -> Environment:
        graph, read = self.graph, reader(self.env)
        local = {graph.carry[k]: self.env[graph.carry[k]] for k in graph.hidden}
        read_local = reader(local)
        # on the way from a weight operation to its y the weight alone is live
        chains = [(s.equation, *s.chain) for s in graph.sites if s.chain]
        chain = {e for of_site in chains for e in of_site}
        chained = {v for of_site in chains for e in of_site[:-1] for v in e.outputs}
        for e in graph.step:
            if not any(v in graph.labels or v in chained for v in e.outputs):
                continue
            numbers = [self.sites.get((e, k)) for k in range(len(e.inputs))]
            sites = [graph.sites[n] for n in numbers if n is not None]
            # the operands that carry a position's own state
            own = [
                v in chained
                if e in chain
                else v in local and n is None and (e, k) not in graph.mixing
                for k, (v, n) in enumerate(zip(e.inputs, numbers, strict=True))
            ]
            constant = self.perturbations is not None and all(s.is_operation for s in sites)
            if any(own) or (sites and not constant):
                values = [
                    read(v) if n is not None else read_local(v) if is_own else stop(read(v))
                    for v, n, is_own in zip(e.inputs, numbers, own, strict=True)
                ]
                local.update(self.apply(e, values))
            else:  # nothing local enters, and both evaluations have one value
                local.update(self.perturbed(e, [stop(self.env[v]) for v in e.outputs]))
        return local

    def _within(self, plan: LayerPlan, layer: int) -> Environment:
        graph, env, ready = self.graph, dict(self.env), set(self.graph.prelude_results)
        env |= {v: stop(env[v]) for v, owner in plan.leaf_layer.items() if owner != layer}
        read = reader(env)
        for e in graph.step:
            # marked by the user, or a parameter's that has no site
            values = [
                stop(read(v))
                if is_stop_trace(e) or (v in ready and (e, k) not in self.sites)
                else read(v)
                for k, v in enumerate(e.inputs)
            ]
            env |= self.apply(e, values)
            others = [v for v in e.outputs if plan.layer_of.get(v, layer) != layer]
            env |= {v: stop(self.env[v]) for v in others}
        return {v: env[v] for v in variables(graph.new_carry[k] for k in plan.leaves[layer])}


def _plus(value: Array, perturbation: Array | None) -> Array:
    return value if perturbation is None else value + perturbation.astype(value.dtype)
