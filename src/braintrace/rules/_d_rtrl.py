"""D-RTRL: real-time recurrent learning with the position-wise part of the recurrent Jacobian."""

import dataclasses

from ..core.engine import Rule
from ..core.traces import PerParameter
from ._algorithm import Compared, Configurable
from ._registry import register_algorithm


@register_algorithm("d_rtrl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DRTRLRule(Configurable):
    r"""Online gradients with one eligibility trace per parameter and sample.

    With h the state of a position (a neuron, with S state slots), y = x W what a weight brings to
    it, D the derivative of the new state with respect to the old one inside a position, and f that
    with respect to y, the trace of W and the gradient are

    .. math::

        \epsilon^t = D^t \epsilon^{t-1} + f^t \otimes x^t, \qquad
        \nabla_W L = \sum_t \frac{\partial L^t}{\partial h^t} \circ \epsilon^t .

    Memory: O(B I O S) for a weight of I inputs and O outputs and B samples. Time: O(B I O S^2) a
        step.

    The gradient of a parameter equals that of BPTT when no state that it acts on reaches a later
    state except through its own position (no recurrent product, no stateful layer above); otherwise
    the paths through other positions are left out, and `report` names them. Parameters that act on
    no state (a readout) get their ordinary gradient.

    Args:
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        config: another point of the axes of `ETraceConfig`, with `trace_factorization='per_param'`.
        random_feedback_key: whole number or PRNG key, for a config with random feedback.

    Raises:
        UsageError: for an option that is not one of these, or a trace_dtype that is not
            floating-point.

    References:
        Wang et al., Nature Communications 17:1745 (2026), doi 10.1038/s41467-026-68453-w.
        Deviation: D and f are exact for every position, gates and adaptation included, and the loss
        reaches the traces by every path inside the step.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h, trace_dtype=jnp.float32)
    >>> learner.report.counts["exact"]
    1
    """

    name = "D_RTRL"
    factored = False

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B |W|)", "own-neuron paths"),)

    def parts(self) -> Rule:
        return self.configured() or Rule("D-RTRL", PerParameter(self.trace_dtype))
