"""D-RTRL: real-time recurrent learning with the position-wise part of the recurrent Jacobian."""

from typing import Any

import brainstate

from ..compat import ETraceConfig
from ..core.engine import Rule
from ..core.traces import PerParameter
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options


class ParamDimVjpAlgorithm(ETraceVjpAlgorithm):
    r"""Online gradients with one eligibility trace per parameter and lane.

    With h the state of a position (a neuron, with S state slots), y = x W what a weight brings to
    it, D the derivative of the new state with respect to the old one inside a position, and f that
    with respect to y, the trace of W and the gradient are

    .. math::

        \epsilon^t = D^t \epsilon^{t-1} + f^t \otimes x^t, \qquad
        \nabla_W L = \sum_t \frac{\partial L^t}{\partial h^t} \circ \epsilon^t .

    Memory: O(B I O S) for a weight of I inputs and O outputs and B lanes. Time: O(B I O S^2) a
        step.

    The gradient of a parameter equals that of BPTT when no state that it acts on reaches a later
    state except through its own position (no recurrent product, no stateful layer above); otherwise
    the paths through other positions are left out, and `report` names them. Parameters that act on
    no state (a readout) get their ordinary gradient.

    Args:
        model: a one-step brainstate module whose states are initialised.
        vjp_method: 'single-step', or 'multi-step' for BPTT inside a call with `MultiStepData` plus
            the traces at its entry.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        config: another point of the axes of `ETraceConfig`, with `trace_factorization='per_param'`.
        random_feedback_key: whole number or PRNG key, for a config with random feedback.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

    Raises:
        UsageError: for an option that is not one of these, or a trace_dtype that is not
            floating-point.

    References:
        Wang et al., Nature Communications 17:1745 (2026), doi 10.1038/s41467-026-68453-w.
        Deviation: D and f are exact for every position, gates and adaptation included, and the loss
        reaches the traces by every path inside the step.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> braintrace.compile(
    ...     model, braintrace.ParamDimVjpAlgorithm, jnp.zeros(2), trace_dtype=jnp.float32
    ... ).config.describe()
    'default'
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        *,
        vjp_method: str = "single-step",
        trace_dtype: Any = None,
        config: ETraceConfig | None = None,
        random_feedback_key: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(
            trace_dtype=trace_dtype, config=config, random_feedback_key=random_feedback_key
        )
        super().__init__(model, rule, vjp_method=vjp_method, name=name, **settings)

    @staticmethod
    def rule(
        *,
        trace_dtype: Any = None,
        config: ETraceConfig | None = None,
        random_feedback_key: Any = None,
    ) -> Rule:
        """The parts of this algorithm."""
        dtype = _options.trace_dtype(trace_dtype)
        if config is not None:
            return _options.configured(config, False, random_feedback_key, dtype)
        return Rule("D-RTRL", PerParameter(dtype))


class D_RTRL(ParamDimVjpAlgorithm):
    """D-RTRL under its usual name: the equations, costs and options of `ParamDimVjpAlgorithm`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> learner = braintrace.compile(
    ...     brainstate.nn.GRUCell(2, 3), braintrace.D_RTRL, jnp.zeros((4, 2)), batch_size=4
    ... )
    >>> learner(jnp.ones((4, 2))).shape
    (4, 3)
    """

    __module__ = "braintrace"
