"""OSTL: online spatio-temporal learning, with and without recurrence."""

import dataclasses

from jax.typing import DTypeLike

from ..core.engine import Rule
from ..core.traces import Factored, MayBeFiltered, WithinLayer
from ._algorithm import Algorithm, Compared
from ._options import decay, floating, option
from ._registry import register_algorithm


@register_algorithm("ostl_recurrent")
@dataclasses.dataclass(frozen=True, kw_only=True)
class OSTLRecurrentRule(Algorithm):
    r"""OSTL with recurrence: the exact influence of each weight on the whole state of its layer.

    .. math::

        \epsilon^t = \frac{d h^t}{d h^{t-1}} \epsilon^{t-1} + \frac{\partial h^t}{\partial\theta},
        \qquad \nabla_\theta L = \sum_t \frac{\partial L^t}{\partial h^t} \epsilon^t

    with h all that a layer carries for one sample, the recurrent weights inside dh/dh included. A
    layer is a set of state groups that feed each other. Equal to BPTT for one layer of any cell,
    however its gates and normalisations mix the neurons; in a stack, the top layer is exact and
    credit from a layer's past to the layer above is left out.

    Memory: B n |W| numbers, n the layer's state elements of one sample, moved where they lie. Time:
    O(B n^2 |W|) once for a window of K steps, and O(B n (|W| + n^2)) for each of them, as products
    of matrices; samples never meet in a Jacobian. A layer whose neurons do not move each other has
    the traces and costs of `D_RTRL`. Over a sequence that starts from zero traces and keeps none, a
    window needs no trace at all.

    Args:
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    References:
        Bohnstingl et al., IEEE TNNLS, arXiv 2007.12723.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := jnp.tanh(h @ p["u"] + x @ p["w"])), h)
    >>> params = {"w": jnp.ones((2, 3)), "u": jnp.ones((3, 3))}
    >>> h, x = jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "ostl_recurrent", x, params=params, carry=h)
    >>> learner.report.counts["exact"]  # recurrent weights included
    2
    """

    name = "OSTLRecurrent"

    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B N |W|)", "all paths within a layer"),)

    def parts(self) -> Rule:
        return Rule("OSTL with recurrence", WithinLayer(self.trace_dtype))


@register_algorithm("ostl_feedforward")
@dataclasses.dataclass(frozen=True)
class OSTLFeedforwardRule(Algorithm):
    r"""OSTL without recurrence: the temporal trace of each weight through its neuron's own state.

    .. math::

        \epsilon^t = D^t \epsilon^{t-1} + f^t \otimes x^t, \qquad
        \nabla_\theta L = \sum_t \frac{\partial L^t}{\partial h^t} \circ \epsilon^t

    "Without recurrence" speaks of the architecture: in a layer without recurrent weights dh/dh is
    diagonal, and this is exact for a layer under a memoryless readout. In a recurrent layer the
    recurrent path is left out (it is then D-RTRL).

    Where the step is proven to have one constant leak and one constant gain (a leaky integrator
    with a detached reset), :math:`\epsilon` is the filtered input, and kept as that: the same
    gradient at the cost of OTTT.

    Memory: O(B I O S); of filtered inputs O(B I); with a decay O(B (I + O S)). Time: O(B I O S^2)
    a step; of filtered inputs that of OTTT.

    Args:
        decay_or_rank: None for the trace as published; a decay or rank for the factorised
            approximation of `pp_prop`.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    References:
        Bohnstingl et al., IEEE TNNLS, arXiv 2007.12723 (networks without recurrence).

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := jnp.tanh(0.5 * h + x @ w)), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "ostl_feedforward", x, params=w, carry=h)
    >>> learner.report.counts["exact"]
    1
    """

    name = "OSTLFeedforward"

    decay_or_rank: float | None = option(None, decay)
    _: dataclasses.KW_ONLY
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B |W|)", "own-neuron paths"),)

    def parts(self) -> Rule:
        if (decay := self.decay_or_rank) is None:
            return Rule("OSTL without recurrence", MayBeFiltered(self.trace_dtype))
        carrier = Factored(decay, decay, self.trace_dtype)
        return Rule("OSTL without recurrence, factored", carrier)
