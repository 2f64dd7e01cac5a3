"""e-prop: eligibility at the spikes, filtered as the readout filters them, with broadcast learning
signals.
"""

from typing import Any

import brainstate
import numpy as np

from ..core._errors import UsageError, problem
from ..core.engine import Rule
from ..core.signals import Edit, Feedback, FiringRate, OutputFilter
from ..core.traces import PerParameter
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options


class EProp(ETraceVjpAlgorithm):
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
        model: a one-step brainstate module whose states are initialised.
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
            target)^2, f_j the mean of z_j over lanes and steps, kept as a running mean.
        feedback_decay: for 'adaptive': how much B - W loses at each step.
        feedback_weights: None, or the matrices B themselves, one for each readout, shaped as its
            weight; for 'adaptive' what B starts from beside the readout's weight, B - W.
        vjp_method: 'single-step', or, with symmetric feedback, 'multi-step'.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

    Raises:
        UsageError: for options out of range, or a multi-step window with random or adaptive
            feedback, whose BPTT part would mix two learning signals.
        CompilationError: when no linear readout is found whose weight could be replaced.

    References:
        Bellec et al., Nature Communications 11:3625 (2020), eq. 1; the variant called e-prop 1.
        Deviation: the filter is not normalised (a factor 1 - kappa is the readout's own, where it
        has one); D keeps the neuron's reset unless the model stops it with `stop_gradient`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, braintrace.EProp, jnp.zeros(2), kappa_filter_decay=0.9)
    >>> learner.config.describe()
    "trace_filter='kappa', kappa=0.9"
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        *,
        feedback: str = "symmetric",
        random_feedback_key: Any = None,
        feedback_scale: float = 1.0,
        kappa_filter_decay: Any = 0.0,
        firing_rate: tuple[float, float] | None = None,
        feedback_decay: float = 1e-4,
        feedback_weights: Any = None,
        vjp_method: str = "single-step",
        trace_dtype: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(
            feedback=feedback,
            random_feedback_key=random_feedback_key,
            feedback_scale=feedback_scale,
            kappa_filter_decay=kappa_filter_decay,
            firing_rate=firing_rate,
            feedback_decay=feedback_decay,
            feedback_weights=feedback_weights,
            trace_dtype=trace_dtype,
        )
        super().__init__(model, rule, vjp_method=vjp_method, name=name, **settings)

    @staticmethod
    def rule(
        *,
        feedback: str = "symmetric",
        random_feedback_key: Any = None,
        feedback_scale: float = 1.0,
        kappa_filter_decay: Any = 0.0,
        firing_rate: tuple[float, float] | None = None,
        feedback_decay: float = 1e-4,
        feedback_weights: Any = None,
        trace_dtype: Any = None,
    ) -> Rule:
        """The parts of this algorithm."""
        feedback = _options.one_of("feedback", feedback, ("symmetric", "random", "adaptive"))
        edits: list[Edit] = []
        if kappa_filter_decay == "readout":
            edits.append(OutputFilter(None))
        elif _options.decay("kappa_filter_decay", kappa_filter_decay) > 0:
            edits.append(OutputFilter(float(kappa_filter_decay)))
        if feedback != "symmetric":
            if random_feedback_key is None and feedback_weights is None:
                raise UsageError(
                    problem(
                        f"feedback={feedback!r} needs to know how to draw B.",
                        expected="random_feedback_key",
                        do="pass random_feedback_key=0, say, or feedback_weights",
                    )
                )
            seed = (
                0
                if random_feedback_key is None
                else _options.seed("random_feedback_key", random_feedback_key)
            )
            scale = _options.positive("feedback_scale", feedback_scale)
            kept = _options.decay("feedback_decay", feedback_decay)
            given = (
                None if feedback_weights is None else tuple(np.asarray(b) for b in feedback_weights)
            )
            edits.append(Feedback(feedback == "adaptive", seed, scale, kept, given))
        if firing_rate is not None:
            if not isinstance(firing_rate, tuple | list) or len(firing_rate) != 2:
                raise UsageError(
                    problem(
                        "Wrong firing_rate.",
                        got=repr(firing_rate),
                        expected="(target, strength), or None",
                    )
                )
            target, strength = firing_rate
            edits.append(
                FiringRate(float(target), _options.positive("strength of firing_rate", strength))
            )
        why = (
            ""
            if feedback == "symmetric"
            else (
                "use vjp_method='single-step': inside a multi-step window BPTT would follow the "
                "readout's weight and the traces B"
            )
        )
        return Rule("e-prop", PerParameter(_options.trace_dtype(trace_dtype)), tuple(edits), why)
