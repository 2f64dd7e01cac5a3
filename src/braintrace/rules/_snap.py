"""SnAp-n: the influence of a parameter within n steps."""

import dataclasses

from jax.typing import DTypeLike

from ..core._domains import whole
from ..core.engine import Rule
from ..core.traces import WithinSteps
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


@register_algorithm("snap")
@dataclasses.dataclass(frozen=True)
class SnApRule(Algorithm):
    r"""Sparse n-step approximation of real-time recurrent learning.

    .. math::

        J^t = S_n \circ (D^t J^{t-1} + I^t), \qquad
        \nabla_\theta L = \sum_t \frac{\partial L^t}{\partial h^t} J^t

    with :math:`D = \partial h^t / \partial h^{t-1}` over all that the model carries and S the
    elements of J that a parameter can reach within n steps, by the structure of the program: of
    :math:`\sum_{k<n} |D|^k |I|`, unit by unit. A unit is a position of the state: c and h of an
    LSTM's cell are one. SnAp-1 keeps what a unit does to itself, its own recurrent weight included.
    What is connected is read from the program, never from the values of a step: constant masks, the
    indices of a sparse matrix, diagonals.

    Memory: O(B \|S\|), exactly its elements, and once (not for each sample) 12 bytes for each
    product of a step. Time: a product for each element of S and each element that moves it within
    S, and a reverse pass of the step for each state element.

    Args:
        n: steps that a parameter's influence is followed for, by default 2; with as many as the
            longest way between two units it is RTRL (of dense recurrent weights: with 2).
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    References:
        Menick, Elsen, Evci, Osindero, Simonyan and Graves, ICLR 2021, arXiv 2006.07232. Deviation:
        what is read by a step's loss is masked as the state of its unit is, so that readouts of
        values that are no state count as well. Weights that act on all units at once (a shared
        kernel, a layer below) reach all of them in one step, as the equation says.

    >>> import braintrace, jax.numpy as jnp
    >>> def cell(p, h, x):  # a ring
    ...     h = jnp.tanh(p["a"] * h + p["r"] * jnp.roll(h, 1, -1) + x)
    ...     return h, h
    >>> params = {"a": jnp.ones(5), "r": jnp.ones(5)}
    >>> given, x = {"params": params, "carry": jnp.zeros((1, 5))}, jnp.ones((1, 5))
    >>> [
    ...     braintrace.compile(cell, "snap", x, n=n, **given).memory_plan(9).parameters[0].traces
    ...     for n in (1, 2, 5)  # 4 bytes for each of 5 n pairs
    ... ]
    [20, 40, 100]
    """

    name = "SnAp"

    n: int = option(2, whole)
    _: dataclasses.KW_ONLY
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"n": 1}, "O(B |S|)", "what a parameter reaches in n = 1 steps"),)

    def parts(self) -> Rule:
        return Rule(f"SnAp-{self.n}", WithinSteps(self.trace_dtype, steps=self.n))
