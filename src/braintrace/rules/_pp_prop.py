"""ES-D-RTRL (pp_prop): D-RTRL with the trace factorised into an input side and a state side."""

import dataclasses
from typing import Any

from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.traces import Factored
from ._algorithm import Compared, Configurable
from ._options import decay, option
from ._registry import register_algorithm


def _decays(name: str, value: Any) -> tuple[float, float]:
    """Those of the input and of the state side."""
    pair = value if isinstance(value, tuple | list) else (value, value)
    if len(pair) != 2:
        raise UsageError(f"Invalid {name}.", got=repr(value), expected="one value, or a pair")
    return decay(name, pair[0]), decay(name, pair[1])


@register_algorithm("pp_prop", "es_d_rtrl", "esd_rtrl")
@dataclasses.dataclass(frozen=True)
class PPPropRule(Configurable):
    r"""Online gradients with a factorised eligibility trace: one for the inputs and one for the
    state.

    .. math::

        \epsilon_x^t = \alpha_x \epsilon_x^{t-1} + x^t, \qquad
        \epsilon_f^t = \alpha_f D^t \epsilon_f^{t-1} + (1 - \alpha_f) f^t, \qquad
        \nabla_W L = \sum_t \epsilon_x^t \otimes \Big(\frac{\partial L^t}{\partial h^t} \circ
            \frac{\epsilon_f^t}{1 - \alpha_f^{t+1}}\Big)

    with t = 0, 1, ... counted from the last reset, sample by sample. Biases and parameters inside a
    neuron are weights of the constant input 1. Memory: O(B (I + O S)). Time: O(B I O), one product
    per step or window.

    The gradient is that of no program in closed form: it replays the state's linear recursion with
    the drive :math:`\epsilon_x^t` at every step. It is close to D-RTRL where D is near
    :math:`\alpha` and f varies little (a leaky membrane with a detached reset), with a gain that
    falls from 1 to :math:`1/(1+\alpha)`; with decay 0 it sees no past.

    Args:
        decay_or_rank: the decay :math:`\alpha` in [0, 1), or a whole number n >= 1, the rank, for a
            decay of (n - 1) / (n + 1); or a pair of these for the input and the state side.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        config: a point of the axes of `ETraceConfig` with `trace_factorization='io_factorized'`, in
            place of decay_or_rank.
        random_feedback_key: whole number or PRNG key, for a config with random feedback.

    Raises:
        UsageError: for a decay or rank out of range.

    References:
        Wang et al., Nature Communications 17:1745 (2026), doi 10.1038/s41467-026-68453-w.
        Deviation: the correction 1 - alpha^(t+1) is kept at all t and is counted in steps.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "pp_prop", x, params=w, carry=h, decay_or_rank=(0.9, 19))
    >>> learner.memory_plan(1000).traces  # 2 inputs, 3 states, 1 count of steps
    24
    """

    name = "pp_prop"
    factored = True

    decay_or_rank: float | tuple[float, float] | None = option(None, _decays)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config is None and self.decay_or_rank is None:
            decay("decay_or_rank", None)  # which refuses

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"decay_or_rank": leak}, "O(B (I + O))", "smoothed own-neuron paths"),)

    def parts(self) -> Rule:
        pair: Any = self.decay_or_rank
        return self.configured() or Rule("ES-D-RTRL", Factored(*pair, dtype=self.trace_dtype))
