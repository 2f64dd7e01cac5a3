"""Three-factor learning: eligibility traces that a modulator turns into gradients."""

import dataclasses

from jax.typing import DTypeLike

from ..core._domains import fraction
from ..core.engine import Rule
from ..core.signals import Modulator
from ..core.traces import PerParameter
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


@register_algorithm("three_factor")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ThreeFactorRule(Algorithm):
    r"""Three-factor learning: eligibility traces times a modulator, which comes with each step.

    .. math::

        \epsilon^t = D^t \epsilon^{t-1} + f^t \otimes x^t, \qquad
        e^t = \frac{\partial z^t}{\partial h^t} \epsilon^t, \qquad
        \nabla_{\theta_l} L = \sum_t m_l^t \circ e_l^t

    with e the eligibility of the activity z that a hidden group hands to others, and m the
    `modulator` of `update` and of the sequence drivers. It is the gradient of
    :math:`\sum_t \langle m^t, z^t \rangle`: descent lowers an activity whose modulator is positive,
    so that a reward r that is to raise it is passed as :math:`m = -r`. Nothing of the loss reaches
    the hidden weights; the readout learns from its true error.

    With `kappa_filter_decay` the eligibility is filtered, :math:`\bar e^t = \kappa \bar e^{t-1} +
    e^t`: the reward-based e-prop of Bellec et al.,

    .. math::

        \Delta\theta_{ji} = -\eta \sum_t m_j^t\, \bar e_{ji}^t, \qquad m_j^t = -\delta^t L_j

    with :math:`\delta^t` the prediction error of the reward, :math:`L_j` a learning signal of each
    neuron, and :math:`\kappa` the discount of the reward.

    Memory: O(B I O S), S one more with a filter. Time: O(B I O S^2) a step.

    Args:
        kappa_filter_decay: :math:`\kappa` in [0, 1), 0 for no filter.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: for a missing or ill-shaped `modulator`.
        CompilationError: where nothing reads the hidden state, or a group has no one activity.

    References:
        Fremaux and Gerstner, Frontiers in Neural Circuits 9:85 (2016). Bellec et al., Nature
        Communications 11:3625 (2020). Deviation: there the learning signal changes with the step,
        inside of the filter; here it is part of the modulator, which the filtered trace meets.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), h @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> h, xs = jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "three_factor", xs[0], params=params, carry=h)
    >>> state, reward = learner.init(params, h), jnp.array([[0.0], [0.0], [0.0], [1.0]])
    >>> given = {"loss_fn": lambda out: out.sum(-1), "modulator": -reward, "reduction": "sum"}
    >>> gradients, *_ = learner.etrace_grad(params, state, xs, **given)
    >>> gradients["w"].tolist()  # what the last activity owes to each weight
    [[-1.875, -1.875, -1.875], [-1.875, -1.875, -1.875]]
    """

    name = "ThreeFactor"
    multi_step = False

    kappa_filter_decay: float = option(0.0, fraction)
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B |W|)", "a modulator, no error from above"),)

    def parts(self) -> Rule:
        signal = Modulator(self.kappa_filter_decay or None)
        carrier = PerParameter(self.trace_dtype)
        return Rule("three-factor", carrier, (signal,), signal.multi_step_problem)
