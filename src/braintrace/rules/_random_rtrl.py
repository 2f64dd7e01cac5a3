"""Random-sparse RTRL: real-time recurrent learning on a random part of the dynamics."""

import dataclasses

from jax.typing import DTypeLike

from ..core._domains import whole
from ..core.engine import Rule
from ..core.traces import RandomMask
from ._algorithm import Algorithm, Compared
from ._options import Seed, floating, option, seed
from ._registry import register_algorithm


@register_algorithm("random_rtrl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RandomRTRLRule(Algorithm):
    r"""Real-time recurrent learning on a random, fixed part of the dynamics.

    .. math::

        J^t = (D^t \circ M) J^{t-1} + I^t, \qquad
        \nabla_\theta L = \sum_t \frac{\partial L^t}{\partial h^t} J^t

    with :math:`D = \partial h^t / \partial h^{t-1}` over all that the model carries. M keeps all
    that a unit (a position of the state, c and h of an LSTM's cell together) does to itself, and
    what k others do to it, drawn among those that can move it. It is drawn once and is the same for
    all samples and steps. With k as large as the number of units it is RTRL.

    Memory: O(B n |theta|) for n state elements of one sample. Time: O(B n^2 |theta|) a step as a
        product of matrices (the mask is dense), and a reverse pass of the step for each element.

    Args:
        k: other units that are kept in each row.
        mask_key: whole number or PRNG key that M is drawn with.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    References:
        arXiv 2603.15195 (2026). Deviation: own-unit blocks are kept beside the k random ones.

    >>> import braintrace, jax.numpy as jnp
    >>> def cell(p, h, x):
    ...     h = jnp.tanh(h @ p["u"] + x)
    ...     return h, h
    >>> given, x = {"params": {"u": jnp.ones((4, 4))}, "carry": jnp.zeros((1, 4))}, jnp.ones((1, 4))
    >>> [
    ...     str(braintrace.compile(cell, "random_rtrl", x, k=k, **given).graph.exactness("['u']"))
    ...     for k in (2, 4)
    ... ]
    ['approximate', 'exact']
    """

    name = "RandomRTRL"

    k: int = option(4, whole)
    mask_key: Seed = option(0, seed)
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"k": 4}, "O(B N |W|)", "own-neuron paths and 4 random others"),)

    def parts(self) -> Rule:
        carrier = RandomMask(self.trace_dtype, count=self.k, seed=self.mask_key)
        return Rule("RandomRTRL", carrier)
