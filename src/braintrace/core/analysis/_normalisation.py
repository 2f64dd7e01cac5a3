"""Normalisations: where what a site gives is divided by its own size on the way to a state.

The size is a sum, a mean or a maximum of its squares or absolute values, or a root of that (a
variance, a norm); a softmax has no such size. At zero input the quotient has a slope of 1 over the
little that is added to the size, far above its slope at any other input.
"""

from collections.abc import Set

from .._compat import P, named
from ..jaxpr import Atom, Const, Equation, Var
from ._dependence import reach
from ._graph import CellGraph, Site, new_leaves

_SUMS = named("reduce_sum reduce_max cumsum psum pmax")
# the size of something stays one: constants are added, axes moved, roots drawn
_KEEPS = _SUMS | named(
    "add sub max sqrt real convert_element_type broadcast_in_dim reshape squeeze transpose copy "
    "select_n sharding_constraint"
)
_ABSOLUTE = named("abs square")


def normalisations(graph: CellGraph, site: Site) -> list[Equation]:
    """The divisions of a site's result by its own size, between the site and its states."""
    own, direct = (reach(graph.step, site.end.outputs, cut) for cut in ((), graph.mixing))
    squares: set[Atom] = set()
    sizes: set[Atom] = set()
    inverse: set[Atom] = set()
    found = []
    for e in graph.step:
        made = own.intersection(e.outputs)
        for kind in (squares, sizes, inverse):
            if any(v in kind for v in _kept(e, own)):
                kind |= made
        if _is_square(e, own):
            squares |= made
        if (e.primitive in _SUMS and e.inputs[0] in squares) or _is_inner_product(e, own):
            sizes |= made
        if (by := _inverted(e)) is not None and by in sizes:
            inverse |= made
        if _divides(e, direct, sizes, inverse) and _moves_a_state(graph, e):
            found.append(e)
    return found


def _kept(e: Equation, own: Set[Atom]) -> list[Atom]:
    """The operands that `e` does no more than scale, move or add to."""
    if e.primitive in _KEEPS:
        return e.inputs
    mine = [v for v in e.inputs if v in own]
    scales = e.primitive is P.mul_p or (e.primitive is P.div_p and e.inputs[0] in own)
    return mine if scales and len(mine) == 1 else []


def _is_square(e: Equation, own: Set[Atom]) -> bool:
    if e.primitive is P.integer_pow_p:
        return e.params["y"] > 0 and e.params["y"] % 2 == 0
    both = e.primitive is P.mul_p and all(v in own for v in e.inputs)
    return both or e.primitive in _ABSOLUTE


def _is_inner_product(e: Equation, own: Set[Atom]) -> bool:
    return e.primitive is P.dot_general_p and all(v in own for v in e.inputs)


def _inverted(e: Equation) -> Atom | None:
    """What `e` is one over, or one over a root of."""
    if e.primitive is P.div_p:
        return e.inputs[1]
    power = e.inputs[1] if e.primitive is P.pow_p else None
    below = isinstance(power, Const) and bool((power.value < 0).all())
    below = below or (e.primitive is P.integer_pow_p and e.params["y"] < 0)
    return e.inputs[0] if below or e.primitive is P.rsqrt_p else None


def _divides(e: Equation, direct: Set[Var], sizes: Set[Atom], inverse: Set[Atom]) -> bool:
    """Whether what reaches a state without mixing is divided in `e`."""
    if e.primitive is P.div_p:
        return e.inputs[0] in direct and e.inputs[1] in sizes
    if e.primitive is not P.mul_p:
        return False
    a, b = e.inputs
    return (a in direct and b in inverse) or (b in direct and a in inverse)


def _moves_a_state(graph: CellGraph, e: Equation) -> bool:
    moved = reach(graph.step, e.outputs, graph.mixing)
    return any(v in moved for v in new_leaves(graph).values())
