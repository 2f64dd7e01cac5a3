"""Which equations are cheap: made again faster than their results are written and read back."""

from typing import Any

from .._compat import CONTROL_FLOW, sub_jaxprs
from ._elementwise import ELEMENTWISE, is_elementwise
from ._program import Equation

_MOVES = (
    "broadcast_in_dim",
    "concatenate",
    "expand_dims",
    "iota",
    "pad",
    "reshape",
    "rev",
    "slice",
    "split",
    "squeeze",
    "transpose",
)
CHEAP = frozenset((*(p.name for p in ELEMENTWISE), *_MOVES))  # names of primitives


def is_cheap(equation: Equation) -> bool:
    """Whether an equation, or all that a call consists of, is elementwise or moves elements."""
    return _is_cheap(equation) or is_elementwise(equation)


def _is_cheap(equation: Any) -> bool:
    inner = sub_jaxprs(equation.params)
    if inner and equation.primitive not in CONTROL_FLOW:
        return all(_is_cheap(e) for program in inner for e in program.jaxpr.eqns)
    return equation.primitive.name in CHEAP
