"""S-TLLR: a spike-timing rule of three factors, from inputs before a spike and after it."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import finite, fraction, positive
from ..core.engine import Rule
from ..core.signals import Edit, Feedback, SlopeTrace
from ..core.traces import Presynaptic
from ._algorithm import Algorithm, Compared
from ._options import Seed, drawn_or_given, floating, matrices, one_of, option, seed
from ._registry import register_algorithm


@register_algorithm("s_tllr")
@dataclasses.dataclass(frozen=True, kw_only=True)
class STLLRRule(Algorithm):
    r"""STDP-inspired temporal local learning rule.

    .. math::

        \hat x^t = \lambda_{pre} \hat x^{t-1} + x^t, \qquad
        \hat\Psi^t = \lambda_{post} \hat\Psi^{t-1} + \Psi^t, \qquad
        \nabla_W L = \sum_t q^t \circ \big(\alpha_{pre} \Psi^t \otimes \hat x^t
            + \alpha_{post} \hat\Psi^{t-1} \otimes x^t\big)

    with :math:`\Psi = \partial z / \partial y` the slope of a layer's activity z in its drive y and
    q the derivative of the loss of time t by z, through the nodes of time t. The first term rewards
    inputs that come before the activity (causal), the second counts those that come after it.
    With :math:`\alpha_{post} = 0` and :math:`\alpha_{pre} = 1` it is OTTT of the leak
    :math:`\lambda_{pre}`. Biases, and parameters inside a neuron, learn from their own step.

    Memory: O(B (I + O)) for a weight. Time: O(B I O) a step.

    Args:
        lambda_pre: decay of the inputs, in [0, 1].
        lambda_post: decay of the slopes, in [0, 1).
        alpha_pre: weight of the causal term.
        alpha_post: weight of the other; negative in the paper's spiking tasks.
        feedback: 'symmetric', the derivative itself; or 'random': a matrix B, drawn once, replaces
            the readout's weight in the backward pass.
        random_feedback_key: whole number or PRNG key that B is drawn with; needed for 'random'.
        feedback_scale: B is drawn as N(0, 1) times this over the square root of the readout's
            fan-in.
        feedback_weights: None, or the matrices B themselves, one for each readout, shaped as its
            weight.
        trace_dtype: dtype of the input traces; by default that of y, at least float32.

    Raises:
        UsageError: for options out of range.
        CompilationError: where a layer has no one activity, or its drive and its activity are not
            in one order and of one shape (the gates of an LSTM, say).

    References:
        Apolinario and Roy, Transactions on Machine Learning Research (2025), arXiv 2306.15220.
        Deviation: :math:`\Psi` is the model's own derivative, not
        :math:`1 / (1 + 100 |u - \theta|)^2`; a model that wants that surrogate defines it. The
        random feedback acts at readouts, and layers below get q through the weights between.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), jnp.tanh(h) @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> given, x = {"params": params, "carry": jnp.zeros((1, 3))}, jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "s_tllr", x, alpha_post=-0.2, **given)
    >>> learner.memory_plan(1000).traces  # 2 inputs, 3 slopes
    20
    """

    name = "S_TLLR"
    multi_step = False

    lambda_pre: float = option(0.75, lambda name, value: fraction(name, value, one=True))
    lambda_post: float = option(0.2, fraction)
    alpha_pre: float = option(1.0, finite)
    alpha_post: float = option(-1.0, finite)
    feedback: str = option("symmetric", one_of("symmetric", "random"))
    random_feedback_key: Seed = option(None, seed)
    feedback_scale: float = option(1.0, positive)
    feedback_weights: Any = option(None, matrices, compare=False)
    trace_dtype: DTypeLike | None = option(None, floating)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback != "symmetric":
            subject = f"feedback={self.feedback!r}"
            drawn_or_given(subject, self.random_feedback_key, self.feedback_weights)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"lambda_pre": leak}, "O(B (I + O))", "a constant leak, past slopes"),)

    def parts(self) -> Rule:
        edits: list[Edit] = []
        if self.alpha_post != 0:
            edits.append(SlopeTrace(self.alpha_post, self.lambda_post))
        if self.feedback != "symmetric":
            key, weights = self.random_feedback_key, self.feedback_weights
            edits.append(Feedback(False, key, self.feedback_scale, weights=weights))
        carrier = Presynaptic((self.lambda_pre,), gain=self.alpha_pre, dtype=self.trace_dtype)
        why = (
            "use vjp_method='single-step': the traces hold no dynamics that BPTT inside a window "
            "could continue"
        )
        return Rule("S-TLLR", carrier, tuple(edits), why, traces_all_state=True)
