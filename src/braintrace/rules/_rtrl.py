"""RTRL: real-time recurrent learning, exact over all layers."""

import dataclasses

from jax.typing import DTypeLike

from ..core.engine import Rule
from ..core.traces import WholeState
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


@register_algorithm("rtrl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RTRLRule(Algorithm):
    r"""Real-time recurrent learning: the exact influence of each weight on all the hidden state.

    .. math::

        J^t = \frac{d h^t}{d h^{t-1}} J^{t-1} + \frac{\partial h^t}{\partial\theta},
        \qquad \nabla_\theta L = \sum_t \frac{\partial L^t}{\partial h^t} J^t

    with h all that the model carries for one sample, the states of all layers. The gradient is that
    of BPTT at fixed parameters, in stacks of any depth.

    Memory: O(B n |theta|) for n state elements of one sample. Time: O(B n^2 |theta|) a window, and
        O(B n (|theta| + n^2)) a step, as products of matrices: for small models, and for tests.

    Args:
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    References:
        Williams and Zipser, Neural Computation 1:270 (1989), doi 10.1162/neco.1989.1.2.270.

    >>> import braintrace, jax.numpy as jnp
    >>> def cell(p, carry, x):  # two layers
    ...     below, above = carry
    ...     below = jnp.tanh(below @ p["u"] + x @ p["w"])
    ...     above = jnp.tanh(above + below @ p["v"])
    ...     return (below, above), above
    >>> params = {"w": jnp.ones((2, 3)), "u": jnp.ones((3, 3)), "v": jnp.ones((3, 3))}
    >>> carry, x = (jnp.zeros((1, 3)), jnp.zeros((1, 3))), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "rtrl", x, params=params, carry=carry)
    >>> learner.report.counts["exact"]
    3
    """

    name = "RTRL"

    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B N |W|)", "all paths"),)

    def parts(self) -> Rule:
        return Rule("RTRL", WholeState(self.trace_dtype))
