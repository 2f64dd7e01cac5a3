"""ES-D-RTRL (pp_prop): D-RTRL with the trace factored into an input side and a state side."""

import numbers
from typing import Any

import brainstate

from ..compat import ETraceConfig
from ..core._errors import UsageError, problem
from ..core.engine import Rule
from ..core.traces import Factored
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options


class IODimVjpAlgorithm(ETraceVjpAlgorithm):
    r"""Online gradients with a factored eligibility trace: one for the inputs and one for the
    state.

    .. math::

        \epsilon_x^t = \alpha_x \epsilon_x^{t-1} + x^t, \qquad
        \epsilon_f^t = \alpha_f D^t \epsilon_f^{t-1} + (1 - \alpha_f) f^t, \qquad
        \nabla_W L = \sum_t \epsilon_x^t \otimes \Big(\frac{\partial L^t}{\partial h^t} \circ
            \frac{\epsilon_f^t}{1 - \alpha_f^{t+1}}\Big)

    with t = 0, 1, ... counted from the last reset, lane by lane. Biases and parameters inside a
    neuron are weights of the constant input 1. Memory: O(B (I + O S)). Time: O(B I O), one product
    per step or window.

    The gradient is that of no program in closed form: it replays the state's linear recursion with
    the drive :math:`\epsilon_x^t` at every step. It is close to D-RTRL where D is near
    :math:`\alpha` and f varies little (a leaky membrane with a detached reset), with a gain that
    falls from 1 to :math:`1/(1+\alpha)`; with decay 0 it sees no past.

    Args:
        model: a one-step brainstate module whose states are initialised.
        decay_or_rank: the decay :math:`\alpha` in [0, 1), or a whole number n >= 1, the rank, for a
            decay of (n - 1) / (n + 1); or a pair of these for the input and the state side.
        vjp_method: 'single-step', or 'multi-step' for BPTT inside a call with `MultiStepData` plus
            the traces at its entry.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        config: a point of the axes of `ETraceConfig` with `trace_factorization='io_factorized'`, in
            place of decay_or_rank.
        random_feedback_key: whole number or PRNG key, for a config with random feedback.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

    Raises:
        UsageError: for a decay or rank out of range.

    References:
        Wang et al., Nature Communications 17:1745 (2026), doi 10.1038/s41467-026-68453-w.
        Deviation: the correction 1 - alpha^(t+1) is kept at all t and is counted in steps.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(
    ...     model, braintrace.IODimVjpAlgorithm, jnp.zeros(2), decay_or_rank=(0.9, 19)
    ... )
    >>> learner.config.decay
    (0.9, 0.9)
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        decay_or_rank: Any = None,
        *,
        vjp_method: str = "single-step",
        trace_dtype: Any = None,
        config: ETraceConfig | None = None,
        random_feedback_key: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(
            decay_or_rank=decay_or_rank,
            trace_dtype=trace_dtype,
            config=config,
            random_feedback_key=random_feedback_key,
        )
        super().__init__(model, rule, vjp_method=vjp_method, name=name, **settings)

    @staticmethod
    def rule(
        *,
        decay_or_rank: Any = None,
        trace_dtype: Any = None,
        config: ETraceConfig | None = None,
        random_feedback_key: Any = None,
    ) -> Rule:
        """The parts of this algorithm."""
        dtype = _options.trace_dtype(trace_dtype)
        if config is not None:
            return _options.configured(config, True, random_feedback_key, dtype)
        pair = (
            decay_or_rank
            if isinstance(decay_or_rank, tuple | list)
            else (decay_or_rank, decay_or_rank)
        )
        if len(pair) != 2:
            raise UsageError(
                problem(
                    "Wrong decay_or_rank.", got=repr(decay_or_rank), expected="one value, or a pair"
                )
            )
        inputs, state = (decay_of(v) for v in pair)
        return Rule("ES-D-RTRL", Factored(inputs, state, dtype))


def decay_of(decay_or_rank: Any) -> float:
    """The decay that a decay or a rank stands for."""
    if (
        isinstance(decay_or_rank, numbers.Integral)
        and not isinstance(decay_or_rank, bool)
        and int(decay_or_rank) >= 1
    ):
        return (int(decay_or_rank) - 1) / (int(decay_or_rank) + 1)
    if (
        isinstance(decay_or_rank, float | int)
        and not isinstance(decay_or_rank, bool)
        and 0 <= decay_or_rank < 1
    ):
        return float(decay_or_rank)
    raise UsageError(
        problem(
            "Wrong decay_or_rank.",
            got=repr(decay_or_rank),
            expected="a decay in [0, 1), or a whole number of at least 1",
            do="pass 0.9, or the rank 19 that stands for it",
        )
    )


class pp_prop(IODimVjpAlgorithm):
    """ES-D-RTRL, or pp_prop, under its usual names: the equations, costs and options of
    `IODimVjpAlgorithm`.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> learner = braintrace.compile(
    ...     brainstate.nn.GRUCell(2, 3), braintrace.ES_D_RTRL, jnp.zeros(2), decay_or_rank=0.9
    ... )
    >>> learner.config.trace_factorization
    'io_factorized'
    """

    __module__ = "braintrace"


ES_D_RTRL = pp_prop
