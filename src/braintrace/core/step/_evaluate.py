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

import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..analysis import CellGraph
from ..jaxpr import Var, evaluate, reader
from ._evaluation import Environment, Evaluation, Perturbations, Values, stop


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Step:
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
    evaluation = Evaluation(graph, env, perturbations)
    signal, local = reader(evaluation.signal()), evaluation.local()
    new = [signal(v) for v in graph.new_carry]
    kept = [
        local[v] if isinstance(v, Var) and v in local else stop(n)
        for v, n in zip(graph.new_carry, new, strict=True)
    ]
    data = [[stop(signal(v)) for v in site.data] for site in graph.sites]
    return Step(new, kept, [signal(v) for v in graph.outs], data)
