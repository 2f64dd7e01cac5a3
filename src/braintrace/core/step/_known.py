"""Results of a step that an earlier evaluation has left: they are read instead of made again, and
differentiate as ever.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from .._compat import is_key
from ..analysis import CellGraph
from ..jaxpr import Atom, Equation, evaluate, is_cheap, needed, reader

Known = Mapping[Equation, Sequence[Any]]

NOTHING_KNOWN: Known = {}


# Elementwise functions that cost most, with their derivatives as functions of their results.
_SLOPE_FROM_RESULT: dict[str, Callable[[Any], Any]] = {
    "exp": lambda y: y,
    "logistic": lambda y: y * (1 - y),
    "tanh": lambda y: 1 - y * y,
}


def worth_keeping(graph: CellGraph) -> list[Equation]:
    """The equations that make the new carry at a cost, products for instance."""
    costly = (
        e
        for e in needed(graph.step, graph.new_carry)
        if e.primitive.name in _SLOPE_FROM_RESULT or not is_cheap(e)
    )
    return [e for e in costly if not any(is_key(v.dtype) for v in e.outputs)]


def feeds_back_at_a_cost(graph: CellGraph) -> bool:
    """Whether a product, or another costly equation, makes the carry from an old one, so that steps
    wait for it.
    """
    old = {v: k for k, v in enumerate(graph.carry)}
    behind: dict[Atom, set[int]] = {v: {k} for v, k in old.items()}  # leaves that reach a variable
    for e in graph.step:
        found = set().union(*(behind.get(v, set()) for v in e.inputs))
        behind.update((v, found) for v in e.outputs)
    reaches = np.eye(len(old), dtype=bool)  # [k, j]: whether leaf k reaches leaf j, in some steps
    for j, v in enumerate(graph.new_carry):
        reaches[list(behind.get(v, ())), j] = True
    for via in range(len(old)):
        reaches |= reaches[:, via : via + 1] & reaches[via]
    ahead: dict[Atom, set[int]] = {}  # leaves whose new value a variable reaches
    for j, v in enumerate(graph.new_carry):
        ahead.setdefault(v, set()).add(j)
    for e in reversed(graph.step):
        found = set().union(*(ahead.get(v, set()) for v in e.outputs))
        for v in e.inputs:
            ahead.setdefault(v, set()).update(found)
        before = set().union(*(behind.get(v, set()) for v in e.inputs))
        if not is_cheap(e) and any(reaches[j, k] for j in found for k in before):
            return True
    return False


def keeping_step(
    graph: CellGraph,
    ready: Sequence[Any],
    carry: Sequence[Any],
    xs: Sequence[Any],
    kept: Sequence[Equation],
) -> tuple[list[Any], list[Any], list[list[Any]]]:
    """The step as the model defines it: (new carry, outputs, the results of the equations
    `kept`).
    """
    env = dict(
        zip((*graph.prelude_results, *graph.carry, *graph.xs), (*ready, *carry, *xs), strict=True)
    )
    evaluate(graph.step, env)
    read = reader(env)
    return (
        [read(v) for v in graph.new_carry],
        [read(v) for v in graph.outs],
        [[env[v] for v in e.outputs] for e in kept],
    )


def results_of(equation: Equation, values: Sequence[Any], known: Known) -> list[Any]:
    """The equation's results at `values`; where they are known they are not computed, but
    differentiate as if they were.
    """
    found = known.get(equation)
    if found is None:
        return equation.bind(values)
    if not any(v.differentiable for v in equation.outputs):
        return list(found)

    @jax.custom_jvp
    def recalled(values: list[Any], results: list[Any]) -> list[Any]:
        return results

    def derivative(primals: Any, tangents: Any) -> Any:
        values, results = primals
        if slope := _SLOPE_FROM_RESULT.get(equation.primitive.name):
            return results, [slope(results[0]) * tangents[0][0]]
        live = [
            k
            for k, t in enumerate(tangents[0])
            if not isinstance(t, jax.custom_derivatives.SymbolicZero)
        ]

        def operation(*some: Any) -> list[Any]:
            inside = list(values)
            for k, v in zip(live, some, strict=True):
                inside[k] = v
            return equation.bind(inside)

        dots = jax.jvp(operation, [values[k] for k in live], [tangents[0][k] for k in live])[1]
        return results, dots

    recalled.defjvp(derivative, symbolic_zeros=True)
    return recalled(list(values), list(found))
