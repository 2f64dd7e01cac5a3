"""e-prop: eligibility at the spikes, filtered as the readout filters them, with broadcast learning
signals.
"""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import fraction, positive
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import Edit, Feedback, FiringRate, OutputFilter
from ..core.traces import PerParameter
from ._algorithm import Algorithm, Compared
from ._options import Seed, drawn_or_given, floating, matrices, one_of, option, seed
from ._registry import register_algorithm


def _kappa(name: str, value: object) -> object:
    return value if isinstance(value, str) and value == "readout" else fraction(name, value)


def _firing_rate(name: str, value: Any) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        expected = "(target, strength), or None"
        raise UsageError(f"Invalid {name}.", got=repr(value), expected=expected)
    target = positive(f"target of {name}", value[0], zero=True)
    return target, positive(f"strength of {name}", value[1])


@register_algorithm("eprop", "e_prop")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EPropRule(Algorithm):
    r"""Eligibility propagation.

    .. math::

        e_{ji}^t = \frac{\partial z_j^t}{\partial h_j^t} \epsilon_{ji}^t, \quad \epsilon^t = D^t
        \epsilon^{t-1} + f^t x^t, \quad \bar e^t = \kappa \bar e^{t-1} + e^t, \quad \nabla_{W_{ji}}
        L = \sum_t L_j^t \bar e_{ji}^t, \quad L_j^t = \sum_k B_{jk} \frac{\partial E^t}{\partial
        y_k^t}

    The filter sits at the exits z that a readout consumes, after the spike derivative, and moves
    with the forward pass. An output that is a state itself is not filtered. With B the readout's
    own weight (symmetric) and :math:`\kappa` that of the readout, the credit that passes through
    the readout's memory is exact; paths from one neuron to another through recurrent weights are
    left out, as in D-RTRL. With `kappa_filter_decay=0` and symmetric feedback it is D-RTRL.

    Memory: O(B I O (S + 1)) for a weight of a layer that a readout reads. Time: O(B I O S^2) a
        step.

    Args:
        feedback: 'symmetric'; 'random': B is drawn once and replaces the readout's weight in the
            backward pass; 'adaptive': B gets the same increments as the readout's weight and both
            decay (Kolen and Pollack), so that they align.
        random_feedback_key: whole number or PRNG key that B is drawn with; needed for 'random' and
            'adaptive'.
        feedback_scale: B is drawn as N(0, 1) times this over the square root of the readout's
            fan-in.
        kappa_filter_decay: :math:`\kappa` in [0, 1), 0 for no filter, or 'readout' for the leak of
            the model's own leaky readout, as it is at compile time.
        firing_rate: None, or (target, strength): adds the gradient of strength / 2 sum_j (f_j -
            target)^2, f_j the mean of z_j over samples and steps, kept as a running mean.
        feedback_decay: for 'adaptive': how much B - W loses at each step.
        feedback_weights: None, or the matrices B themselves, one for each readout, shaped as its
            weight; for 'adaptive' what B starts from beside the readout's weight, B - W.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: for options out of range, or a multi-step window with random or adaptive
            feedback, whose BPTT part would mix two learning signals.
        CompilationError: when no linear readout is found whose weight could be replaced.

    References:
        Bellec et al., Nature Communications 11:3625 (2020), eq. 1; the variant called e-prop 1.
        Deviation: the filter is not normalised (a factor 1 - kappa is the readout's own, where it
        has one); D keeps the neuron's reset unless the model stops it with `stop_gradient`.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), jnp.tanh(h) @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> given, x = {"params": params, "carry": jnp.zeros((1, 3))}, jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "eprop", x, kappa_filter_decay=0.9, **given)
    >>> learner.rule.name
    'e-prop'
    """

    name = "EProp"

    feedback: str = option("symmetric", one_of("symmetric", "random", "adaptive"))
    random_feedback_key: Seed = option(None, seed)
    feedback_scale: float = option(1.0, positive)
    kappa_filter_decay: Any = option(0.0, _kappa)
    firing_rate: tuple[float, float] | None = option(None, _firing_rate)
    feedback_decay: float = option(1e-4, fraction)
    feedback_weights: Any = option(None, matrices, compare=False)
    trace_dtype: DTypeLike | None = option(None, floating)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.feedback != "symmetric":
            subject = f"feedback={self.feedback!r}"
            drawn_or_given(subject, self.random_feedback_key, self.feedback_weights)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (
            Compared({"kappa_filter_decay": 0.5}, "O(B |W|)", "own-neuron paths, readout filter"),
        )

    def parts(self) -> Rule:
        edits: list[Edit] = []
        if (kappa := self.kappa_filter_decay) != 0:
            edits.append(OutputFilter(None if kappa == "readout" else kappa))
        why = ""
        if self.feedback != "symmetric":
            key, weights = self.random_feedback_key, self.feedback_weights
            scale, decay = self.feedback_scale, self.feedback_decay
            edits.append(Feedback(self.feedback == "adaptive", key, scale, decay, weights))
            why = Feedback.multi_step_problem
        if self.firing_rate is not None:
            edits.append(FiringRate(*self.firing_rate))
        return Rule("e-prop", PerParameter(self.trace_dtype), tuple(edits), why)
