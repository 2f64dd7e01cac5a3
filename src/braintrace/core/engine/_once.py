"""What is differentiated once, and in reverse mode: other derivatives of an online gradient are
refused, never silently zero.

An online gradient is made of values that are held constant (traces, the past), so that automatic
differentiation of it would miss whatever depends on these.
"""

from typing import NamedTuple, NoReturn

import jax
from jaxtyping import PyTree

from .._compat import identity_of_reverse_mode, identity_without_derivative, is_differentiable
from .._errors import UsageError


class Refusal(NamedTuple):
    """What a derivative is refused with."""

    what: str
    got: str
    expected: str
    do: str


FORWARD = Refusal(
    "An online gradient is a derivative in reverse mode.",
    "forward mode (jax.jvp, jax.jacfwd, jax.linearize) through a step of the learner",
    "jax.grad, jax.vjp or jax.jacrev",
    "differentiate in reverse mode; for forward mode differentiate the cell itself",
)


def _refuse(refusal: Refusal) -> NoReturn:
    raise UsageError(**refusal._asdict())


_constant = identity_without_derivative("undifferentiated", _refuse)
_reverse = identity_of_reverse_mode("differentiated_in_reverse", _refuse)


def undifferentiated(values: PyTree, refusal: Refusal) -> PyTree:
    """`values`; a derivative with respect to them is refused while it is traced."""
    guard = lambda v: _constant(v, refusal) if is_differentiable(v.dtype) else v
    return jax.tree.map(guard, values)


def in_reverse(values: PyTree) -> PyTree:
    """`values`; forward mode through them is refused."""
    guard = lambda v: _reverse(v, FORWARD) if is_differentiable(v.dtype) else v
    return jax.tree.map(guard, values)
