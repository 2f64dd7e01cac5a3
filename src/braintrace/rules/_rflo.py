"""RFLO: random-feedback local online learning."""

from typing import Any

import brainstate
import numpy as np

from ..core._errors import UsageError, problem
from ..core.engine import Rule
from ..core.signals import Feedback
from ..core.traces import PerParameter
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options


class RFLO(ETraceVjpAlgorithm):
    r"""Random-feedback local online learning.

    .. math::

        \epsilon^t = D^t \epsilon^{t-1} + f^t \otimes x^t, \qquad
        \nabla_W L = \sum_t \big(B^\top \partial L^t / \partial y^t\big) \circ \epsilon^t

    The traces of D-RTRL under a fixed random matrix B, which replaces the readout's weight in the
    backward pass and acts on the readout's error. For a rate unit with leak :math:`1 - 1/\tau`, D
    is that leak and f the slope over :math:`\tau`: the published rule. With B the readout's weight
    it is D-RTRL. The readout itself learns from its true error.

    Memory: O(B I O S). Time: O(B I O S^2) a step.

    Args:
        model: a one-step brainstate module whose states are initialised.
        random_feedback_key: whole number or PRNG key that B is drawn with.
        feedback_scale: B is drawn as N(0, 1) times this over the square root of the readout's
            fan-in.
        feedback_weights: None, or the matrices B themselves, one for each readout, shaped as its
            weight.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

    Raises:
        UsageError: without a key and without matrices.
        CompilationError: when no linear readout is found whose weight could be replaced.

    References:
        Murray, eLife 8:e43299 (2019), doi 10.7554/eLife.43299. Deviation: D and f are those of the
        model's own units, so that gates, adaptation and spikes are covered.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> braintrace.compile(
    ...     model, braintrace.RFLO, jnp.zeros(2), random_feedback_key=0
    ... ).config.learning_signal
    'random_feedback'
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        *,
        random_feedback_key: Any = None,
        feedback_scale: float = 1.0,
        feedback_weights: Any = None,
        trace_dtype: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(
            random_feedback_key=random_feedback_key,
            feedback_scale=feedback_scale,
            feedback_weights=feedback_weights,
            trace_dtype=trace_dtype,
        )
        super().__init__(model, rule, name=name, **settings)

    @staticmethod
    def rule(
        *,
        random_feedback_key: Any = None,
        feedback_scale: float = 1.0,
        feedback_weights: Any = None,
        trace_dtype: Any = None,
    ) -> Rule:
        """The parts of this algorithm."""
        if random_feedback_key is None and feedback_weights is None:
            raise UsageError(
                problem(
                    "RFLO needs to know how to draw B.",
                    expected="random_feedback_key",
                    do="pass random_feedback_key=0, say, or feedback_weights",
                )
            )
        seed = (
            0
            if random_feedback_key is None
            else _options.seed("random_feedback_key", random_feedback_key)
        )
        given = None if feedback_weights is None else tuple(np.asarray(b) for b in feedback_weights)
        signal = Feedback(
            False, seed, _options.positive("feedback_scale", feedback_scale), weights=given
        )
        why = (
            "use vjp_method='single-step': inside a window BPTT would follow the readout's "
            "weight and the traces B"
        )
        return Rule("RFLO", PerParameter(_options.trace_dtype(trace_dtype)), (signal,), why)
