"""OSTL: online spatio-temporal learning, with and without recurrence."""

from typing import Any

import brainstate

from ..core.engine import Rule
from ..core.traces import Factored, PerParameter, WithinLayer
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options
from ._pp_prop import decay_of


class OSTLRecurrent(ETraceVjpAlgorithm):
    r"""OSTL with recurrence: the exact influence of each weight on the whole state of its layer.

    .. math::

        \epsilon^t = \frac{d h^t}{d h^{t-1}} \epsilon^{t-1} + \frac{\partial h^t}{\partial\theta},
        \qquad \nabla_\theta L = \sum_t \frac{\partial L^t}{\partial h^t} \epsilon^t

    with h all that a layer carries in one lane, the recurrent weights inside dh/dh included. A
    layer is a set of state groups that feed each other. Equal to BPTT for one layer of any cell,
    however its gates and normalisations mix the neurons; in a stack, the top layer is exact and
    credit from a layer's past to the layer above is left out.

    Memory: B n |W| numbers, n the layer's state elements in one lane, moved where they lie. Time:
    O(B n^2 |W|) once for a window of K steps, and O(B n (|W| + n^2)) for each of them, as products
    of matrices; lanes never meet in a Jacobian. A layer whose neurons do not move each other has
    the traces and costs of `D_RTRL`. Over a sequence that starts from zero traces and keeps none, a
    window needs no trace at all.

    Args:
        model: a one-step brainstate module whose states are initialised.
        vjp_method: 'single-step', or 'multi-step' for BPTT inside a call with `MultiStepData` plus
            the traces at its entry.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

    References:
        Bohnstingl et al., IEEE TNNLS, arXiv 2007.12723.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, braintrace.OSTLRecurrent, jnp.zeros(2))
    >>> learner.report.counts["exact"]  # recurrent weights included
    6
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        *,
        vjp_method: str = "single-step",
        trace_dtype: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        super().__init__(
            model, self.rule(trace_dtype=trace_dtype), vjp_method=vjp_method, name=name, **settings
        )

    @staticmethod
    def rule(*, trace_dtype: Any = None) -> Rule:
        """The parts of this algorithm."""
        return Rule("OSTL with recurrence", WithinLayer(_options.trace_dtype(trace_dtype)))


class OSTLFeedforward(ETraceVjpAlgorithm):
    r"""OSTL without recurrence: the temporal trace of each weight through its neuron's own state.

    .. math::

        \epsilon^t = D^t \epsilon^{t-1} + f^t \otimes x^t, \qquad
        \nabla_\theta L = \sum_t \frac{\partial L^t}{\partial h^t} \circ \epsilon^t

    "Without recurrence" speaks of the architecture: in a layer without recurrent weights dh/dh is
    diagonal, and this is exact for a layer under a memoryless readout. In a recurrent layer the
    recurrent path is left out (it is then D-RTRL).

    Memory: O(B I O S); with a decay O(B (I + O S)). Time: O(B I O S^2) a step.

    Args:
        model: a one-step brainstate module whose states are initialised.
        decay_or_rank: None for the trace as published; a decay or rank for the factored
            approximation of `pp_prop`.
        vjp_method: 'single-step' or 'multi-step'.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

    References:
        Bohnstingl et al., IEEE TNNLS, arXiv 2007.12723 (networks without recurrence).

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, braintrace.OSTLFeedforward, jnp.zeros(2))
    >>> learner(jnp.ones(2)).shape
    (1,)
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        decay_or_rank: Any = None,
        *,
        vjp_method: str = "single-step",
        trace_dtype: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(decay_or_rank=decay_or_rank, trace_dtype=trace_dtype)
        super().__init__(model, rule, vjp_method=vjp_method, name=name, **settings)

    @staticmethod
    def rule(*, decay_or_rank: Any = None, trace_dtype: Any = None) -> Rule:
        """The parts of this algorithm."""
        dtype = _options.trace_dtype(trace_dtype)
        if decay_or_rank is None:
            return Rule("OSTL without recurrence", PerParameter(dtype))
        decay = decay_of(decay_or_rank)
        return Rule("OSTL without recurrence, factored", Factored(decay, decay, dtype))
