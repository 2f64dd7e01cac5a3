"""OTPE: online training with postsynaptic estimates."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import fraction, positive
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import Postsynaptic
from ..core.traces import PerParameter, Presynaptic
from ._algorithm import Algorithm, Compared
from ._options import floating, one_of, option
from ._registry import register_algorithm


def _leak(name: str, value: object) -> float:
    if value is None:
        raise UsageError(
            "OTPE needs the leak of the membranes.",
            got="no leak",
            expected="a number in [0, 1)",
            do="pass leak=0.9, say",
        )
    return fraction(name, value)


@register_algorithm("otpe")
@dataclasses.dataclass(frozen=True)
class OTPERule(Algorithm):
    r"""Online training with postsynaptic estimates, for feedforward spiking networks.

    .. math::

        \hat R^t = \lambda \hat R^{t-1} + \frac{d s^t}{d\theta}, \quad c^t = \lambda c^{t-1} + 1,
        \quad \bar g^t = \frac{\lambda c^{t-1} \bar g^{t-1} + \psi^t}{c^t}, \quad \nabla_{\theta_l}
        L = \sum_t q_l^t \circ \hat R_l^t, \quad q_{l-1}^t = W_l^\top (q_l^t \circ \bar g_l^t)

    with q the derivative at a layer's spikes s and :math:`\psi` the surrogate. R-hat adds to a
    layer's trace the decay of its influence in the layer above. The approximate form (F-OTPE)
    filters the inputs twice instead: :math:`\hat x = \lambda \hat x + x`,
    :math:`\hat z = \lambda \hat z + \hat x`, gradient
    :math:`\sum_t (q \circ \bar g) \otimes \hat z`; biases then learn from :math:`q \circ \psi` of
    their own step.

    Memory: O(B I O) per layer (full), O(B (I + O)) (approx). Time: O(B I O). The hidden layer right
    below a leaky output of the same leak is exact, with a detached reset.

    Args:
        leak: :math:`\lambda` of the membranes, in [0, 1).
        mode: 'full' or 'approx' (F-OTPE).
        trace_clip_abs: None, or the largest absolute value of a trace; it forces one step at a
            time. For mode='full'.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: for options out of range.
        CompilationError: for layers that feed each other in a circle, or that are read at several
            points.

    References:
        Summe, Schaefer and Joshi, arXiv 2311.16151 (2023).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     v = 0.5 * h[0] + x @ p["w"]
    ...     y = 0.5 * h[1] + jnp.tanh(v) @ p["o"]
    ...     return (v, y), y
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> h, x = (jnp.zeros((1, 3)), jnp.zeros((1, 1))), jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "otpe", x, params=params, carry=h, leak=0.5)
    >>> state, out = learner.update(params, learner.init(params, h), x)
    >>> out.shape
    (1, 1)
    """

    name = "OTPE"
    multi_step = False

    leak: Any = option(None, _leak, needed=True)
    _: dataclasses.KW_ONLY
    mode: str = option("full", one_of("full", "approx"))
    trace_clip_abs: float | None = option(None, positive)
    trace_dtype: DTypeLike | None = option(None, floating)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.trace_clip_abs is not None and self.mode == "approx":
            raise UsageError(
                "trace_clip_abs clips traces of weights, and F-OTPE has none.",
                got="mode='approx'",
                do="use mode='full', or leave trace_clip_abs out",
            )

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (
            Compared({"leak": leak}, "O(B |W|)", "one layer further up"),
            Compared(
                {"leak": leak, "mode": "approx"},
                "O(B (I + O))",
                "one layer further up, estimated",
                "approx",
            ),
        )

    def parts(self) -> Rule:
        why = (
            "use vjp_method='single-step': BPTT inside a window would follow the spikes and the "
            "traces their estimates"
        )
        if self.mode == "approx":
            carrier = Presynaptic((self.leak,), twice=True, dtype=self.trace_dtype)
            return Rule("F-OTPE", carrier, (Postsynaptic(self.leak, True),), why)
        carrier = PerParameter(self.trace_dtype, self.trace_clip_abs)
        return Rule("OTPE", carrier, (Postsynaptic(self.leak, False),), why)
