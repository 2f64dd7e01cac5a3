"""Sites whose y meet in a sum: a change of one is the same change of the other, so that one
derivative serves both.

In `x @ W + h @ U + b` all three have the same derivative. A y whose only use is an addition stands
for the sum.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .._compat import P
from ..jaxpr import Atom, Equation, Var

if TYPE_CHECKING:
    from ._graph import CellGraph, Site

_SUMS = (P.add_p, P.add_jaxvals_p)


def first_of_sum(graph: "CellGraph") -> tuple[int, ...]:
    """For each site, the number of the first site with the same derivative (often its own)."""
    if (
        graph.layers is not None and len(graph.layers.layers) > 1
    ):  # what is stopped between layers differs from variable to variable
        return tuple(range(len(graph.sites)))
    uses = _uses(graph.step, [*graph.new_carry, *graph.outs])
    first: dict[Any, int] = {}
    return tuple(
        first.setdefault(_sum_of(graph, site, uses) or n, n) for n, site in enumerate(graph.sites)
    )


def _uses(
    step: Sequence[Equation], results: Sequence[Atom]
) -> dict[Var, list[tuple[Equation, int] | None]]:
    uses: dict[Var, list[tuple[Equation, int] | None]] = {}
    for e in step:
        for k, v in enumerate(e.inputs):
            if isinstance(v, Var):
                uses.setdefault(v, []).append((e, k))
    for v in results:
        if isinstance(v, Var):
            uses.setdefault(v, []).append(None)
    return uses


def _sum_of(
    graph: "CellGraph", site: "Site", uses: dict[Var, list[tuple[Equation, int] | None]]
) -> Var | None:
    """The variable that a site's y is added into and nothing else; y itself when there is none."""
    v = site.end.outputs[0]
    if not site.is_operation and (
        site.equation.primitive not in _SUMS or v.shape != site.y.shape or v.dtype != site.y.dtype
    ):
        return None
    while True:
        [use, *others] = uses.get(v, [None])
        if use is None or others:
            return v
        e, _ = use
        new = e.outputs[0]
        alike = (
            new.shape == v.shape
            and new.dtype == v.dtype
            and (new in graph.labels) == (v in graph.labels)
        )
        if e.primitive not in _SUMS or use in graph.mixing or not alike:
            return v
        v = new
