"""What a site rule knows: how one weight operation lays out an eligibility trace. And the registry of rules."""

import abc
from collections.abc import Callable
from typing import Any

import jax

from .._compat import Primitive
from .._jaxpr import Equation


class SiteRule(abc.ABC):
    """How the trace of one weight operation `y = op(W, x)`, linear in W, is laid out.

    The trace has one entry for each element of y and each *contraction index* c, the elements of W that feed one element of
    y: its shape is `y.shape + contraction`. Laws (tested for every rule by `braintrace.checks.check_site_rule`):

    * `spread(f, x)` is the derivative of `f * y` with respect to W, entry by entry;
    * `collect(spread(f, x))` equals the operation's own weight gradient at cotangent f.
    """

    @abc.abstractmethod
    def contraction(self) -> tuple[int, ...]:
        """Shape of the contraction index."""

    @abc.abstractmethod
    def spread(self, f: jax.Array, data: list[Any]) -> jax.Array:
        """`f` (shape of y) times the data that each element of W meets: shape `y.shape + contraction`."""

    @abc.abstractmethod
    def collect(self, entries: jax.Array) -> jax.Array:
        """Sum trace-shaped entries into the shape of W."""

    def spread_sum(self, f: jax.Array, data: list[Any]) -> jax.Array:
        """`sum_t spread(f[t], data[t])` over a leading time axis."""
        total, _ = jax.lax.scan(
            lambda total, at: (total + self.spread(at[0], at[1]), None), 0 * self.spread(f[0], [d[0] for d in data]), (f, data)
        )
        return total


RuleMaker = Callable[[Equation, int], SiteRule | None]
_MAKERS: dict[Primitive, RuleMaker] = {}


def register_site_rule(primitive: Primitive, make: RuleMaker) -> None:
    """Teach the library a weight operation.

    `make(equation, operand)` returns the rule for parameters at `equation.inputs[operand]`, or None when the operation is not
    linear in that operand.
    """
    _MAKERS[primitive] = make


def site_rule(equation: Equation, operand: int) -> SiteRule | None:
    """The rule of a parameter at `equation.inputs[operand]`, or None when no rule covers it."""
    make = _MAKERS.get(equation.primitive)
    return None if make is None else make(equation, operand)
