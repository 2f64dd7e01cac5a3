"""RFLO: random-feedback local online learning."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import positive
from ..core.engine import Rule
from ..core.signals import Feedback
from ..core.traces import PerParameter
from ._algorithm import Algorithm, Compared
from ._options import Seed, drawn_or_given, floating, matrices, option, seed
from ._registry import register_algorithm


@register_algorithm("rflo")
@dataclasses.dataclass(frozen=True, kw_only=True)
class RFLORule(Algorithm):
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
        random_feedback_key: whole number or PRNG key that B is drawn with.
        feedback_scale: B is drawn as N(0, 1) times this over the square root of the readout's
            fan-in.
        feedback_weights: None, or the matrices B themselves, one for each readout, shaped as its
            weight.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: without a key and without matrices.
        CompilationError: when no linear readout is found whose weight could be replaced.

    References:
        Murray, eLife 8:e43299 (2019), doi 10.7554/eLife.43299. Deviation: D and f are those of the
        model's own units, so that gates, adaptation and spikes are covered.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), jnp.tanh(h) @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> given, x = {"params": params, "carry": jnp.zeros((1, 3))}, jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "rflo", x, random_feedback_key=0, **given)
    >>> str(learner.graph.exactness("['w']")), str(learner.graph.exactness("['o']"))
    ('approximate', 'exact')
    """

    name = "RFLO"
    multi_step = False

    random_feedback_key: Seed = option(None, seed)
    feedback_scale: float = option(1.0, positive)
    feedback_weights: Any = option(None, matrices, compare=False)
    trace_dtype: DTypeLike | None = option(None, floating)

    def __post_init__(self) -> None:
        super().__post_init__()
        drawn_or_given("RFLO", self.random_feedback_key, self.feedback_weights)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (
            Compared({"random_feedback_key": 0}, "O(B |W|)", "own-neuron paths, random feedback"),
        )

    def parts(self) -> Rule:
        key, weights = self.random_feedback_key, self.feedback_weights
        signal = Feedback(False, key, self.feedback_scale, weights=weights)
        carrier = PerParameter(self.trace_dtype)
        return Rule("RFLO", carrier, (signal,), signal.multi_step_problem)
