"""OTPE: online training with postsynaptic estimates."""

from typing import Any

import brainstate

from ..core._errors import UsageError, problem
from ..core.engine import Rule
from ..core.signals import Postsynaptic
from ..core.traces import PerParameter, Presynaptic
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options


class OTPE(ETraceVjpAlgorithm):
    r"""Online training with postsynaptic estimates, for feedforward spiking networks.

    .. math::

        \hat R^t = \lambda \hat R^{t-1} + \frac{d s^t}{d\theta}, \quad c^t = \lambda c^{t-1} + 1,
        \quad \bar g^t = \frac{\lambda c^{t-1} \bar g^{t-1} + \psi^t}{c^t}, \quad \nabla_{\theta_l}
        L = \sum_t q_l^t \circ \hat R_l^t, \quad q_{l-1}^t = W_l^\top (q_l^t \circ \bar g_l^t)

    with q the derivative at a layer's spikes s and :math:`\psi` the surrogate. R-hat adds to a
    layer's trace the decay of its influence in the layer above. The approximate form (F-OTPE)
    filters the inputs twice instead:
    :math:`\hat x = \lambda \hat x + x`, :math:`\hat z = \lambda \hat z + \hat x`, gradient
    :math:`\sum_t (q \circ \bar g) \otimes \hat z`; biases then learn from
    :math:`q \circ \psi` of their own step.

    Memory: O(B I O) per layer (full), O(B (I + O)) (approx). Time: O(B I O). The hidden layer right
    below a leaky output of the same leak is exact, with a detached reset.

    Args:
        model: a one-step brainstate module whose states are initialised.
        leak: :math:`\lambda` of the membranes, in [0, 1).
        mode: 'full' or 'approx' (F-OTPE).
        trace_clip_abs: None, or the largest absolute value of a trace; it forces one step at a
            time. For mode='full'.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

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
    >>> params, h = (
    ...     {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))},
    ...     (jnp.zeros((1, 3)), jnp.zeros((1, 1))),
    ... )
    >>> learner = braintrace.compile(
    ...     cell, braintrace.OTPE, jnp.ones((1, 2)), params=params, carry=h, leak=0.5
    ... )
    >>> state, out = learner.update(params, learner.init(params, h), jnp.ones((1, 2)))
    >>> out.shape
    (1, 1)
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        leak: Any = None,
        *,
        mode: str = "full",
        trace_clip_abs: float | None = None,
        trace_dtype: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(
            leak=leak, mode=mode, trace_clip_abs=trace_clip_abs, trace_dtype=trace_dtype
        )
        super().__init__(model, rule, name=name, **settings)

    @staticmethod
    def rule(
        *,
        leak: Any = None,
        mode: str = "full",
        trace_clip_abs: float | None = None,
        trace_dtype: Any = None,
    ) -> Rule:
        """The parts of this algorithm."""
        approximate = _options.one_of("mode", mode, ("full", "approx")) == "approx"
        if leak is None:
            raise UsageError(
                problem(
                    "OTPE needs the leak of the membranes.",
                    expected="a number in [0, 1)",
                    do="pass leak=0.9, say",
                )
            )
        leak, dtype = _options.decay("leak", leak), _options.trace_dtype(trace_dtype)
        if trace_clip_abs is not None:
            _options.positive("trace_clip_abs", trace_clip_abs)
            if approximate:
                raise UsageError(
                    problem(
                        "trace_clip_abs clips traces of weights, and F-OTPE has none.",
                        got="mode='approx'",
                        do="use mode='full', or leave trace_clip_abs out",
                    )
                )
        carrier = (
            Presynaptic((leak,), twice=True, dtype=dtype)
            if approximate
            else PerParameter(dtype, trace_clip_abs)
        )
        name = "F-OTPE" if approximate else "OTPE"
        why = (
            "use vjp_method='single-step': BPTT inside a window would follow the spikes and the "
            "traces their estimates"
        )
        return Rule(name, carrier, (Postsynaptic(leak, approximate),), why)
