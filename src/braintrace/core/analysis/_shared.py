"""Sites whose y meet in a sum: a change of one is the same change of the other, so that one
derivative serves both.

In `x @ W + h @ U + b` all three have the same derivative. A y whose only use is an addition stands
for the sum.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from .._compat import P
from ..jaxpr import Atom, Equation, Var, keeps_activity
from ._dependence import Edge, depends

if TYPE_CHECKING:
    from ._graph import CellGraph, Site

_SUMS = (P.add_p, P.add_jaxvals_p)
_ADDS = (*_SUMS, P.sub_p)


def first_of_sum(graph: "CellGraph") -> tuple[int, ...]:
    """For each site, the number of the first site with the same derivative (often its own)."""
    if graph.layers is not None and len(graph.layers.layers) > 1:
        # what is stopped between layers differs from variable to variable
        return tuple(range(len(graph.sites)))
    uses = _uses(graph.step, [*graph.new_carry, *graph.outs])
    first: dict[Var | int, int] = {}
    return tuple(
        first.setdefault(_sum_of(graph, site, uses) or n, n) for n, site in enumerate(graph.sites)
    )


def drive_biases(graph: "CellGraph") -> frozenset[int]:
    """The sites of the parameters that are biases of a drive.

    Such a parameter and a drive (the input, or the result of a product) are terms of one sum and
    act through that sum alone: `b` in `tanh(0.9 h + x @ W + b)`, not a threshold that only the
    spike sees, nor the factor of a state.
    """
    uses = _uses(graph.step, [*graph.new_carry, *graph.outs])
    state = depends(graph.step, graph.carry)
    drives = [s.end.outputs[0] for s in graph.sites if s.is_operation]
    drives += [v for e, _ in graph.mixing for v in e.outputs]

    def linear(use: Edge) -> bool:
        return keeps_activity(*use, state)

    driven = {v for start in [*graph.xs, *drives] for v in _onward(start, uses, linear)}
    return frozenset(
        n
        for n, site in enumerate(graph.sites)
        if not site.is_operation
        and site.equation.primitive in _ADDS
        and any(v in driven for v in _onward(site.equation.outputs[0], uses, linear))
    )


def _uses(step: Sequence[Equation], results: Sequence[Atom]) -> dict[Var, list[Edge | None]]:
    uses: dict[Var, list[Edge | None]] = {}
    for e in step:
        for k, v in enumerate(e.inputs):
            if isinstance(v, Var):
                uses.setdefault(v, []).append((e, k))
    for v in results:
        if isinstance(v, Var):
            uses.setdefault(v, []).append(None)
    return uses


def _onward(
    v: Var, uses: dict[Var, list[Edge | None]], admitted: Callable[[Edge], bool]
) -> Iterator[Var]:
    """v and what it becomes through admitted equations, as long as nothing else reads it."""
    while True:
        yield v
        [use, *others] = uses.get(v, [None])
        if use is None or others or not admitted(use):
            return
        v = use[0].outputs[0]


def _sum_of(graph: "CellGraph", site: "Site", uses: dict[Var, list[Edge | None]]) -> Var | None:
    """The variable that a site's y is added into and nothing else; y itself when there is none."""
    v = site.end.outputs[0]
    if not site.is_operation and (
        site.equation.primitive not in _SUMS or v.shape != site.y.shape or v.dtype != site.y.dtype
    ):
        return None

    def adds(use: Edge) -> bool:
        old, new = use[0].inputs[use[1]], use[0].outputs[0]
        alike = (
            new.shape == old.shape
            and new.dtype == old.dtype
            and (new in graph.labels) == (old in graph.labels)
        )
        return use[0].primitive in _SUMS and use not in graph.mixing and alike

    *_, last = _onward(v, uses, adds)
    return last
