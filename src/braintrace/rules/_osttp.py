"""OSTTP: online spatio-temporal learning with target projection."""

from typing import Any

import brainstate
import numpy as np

from ..core._errors import UsageError, problem
from ..core.engine import Rule
from ..core.signals import TargetProjection
from ..core.traces import PerParameter, WithinLayer
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options


class OSTTP(ETraceVjpAlgorithm):
    r"""Online spatio-temporal learning with target projection.

    .. math::

        \nabla_{\theta_l} L = \sum_t (-B_l\, y^{*t}) \circ e_l^t

    The traces of OSTL with a learning signal that is the projected target :math:`y^*`, at the exits
    (spikes) of each hidden group; the output layer learns from its true error. No error travels
    back through the layers. Descent raises the projection of the activity on the target. A zero
    target gives no gradient to hidden weights.

    Memory: O(B I O S) (diagonal scope), O(B n |W|) (exact). Time: O(B I O S^2) a step.

    Args:
        model: a one-step brainstate module whose states are initialised.
        B_list: matrices (n_target, n_layer), one for each hidden group that is read, in the order
            of the program; or None to draw them with `feedback_key`.
        target_timing: 'per-step': `y_target` has a value for each step, (T, B, n_target) in a
            driver; 'sequence-end': `y_target` is (B, n_target) and acts at the last step of each
            lane that the mask counts.
        feedback_key: whole number or PRNG key.
        feedback_scale: standard deviation of drawn matrices.
        scope: 'diagonal' for the traces without recurrence, 'exact' for the exact influence within
            each layer.
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

    Raises:
        UsageError: without B_list and feedback_key; for a missing or ill-shaped `y_target`.

    References:
        Ortner et al., IEEE AICAS 2023, arXiv 2304.05124. The sign is that of a descent direction.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(
    ...     model, braintrace.OSTTP, jnp.zeros((4, 2)), batch_size=4, feedback_key=0
    ... )
    >>> learner.update(jnp.ones((4, 2)), y_target=jnp.ones((4, 1))).shape
    (4, 1)
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        B_list: Any = None,
        *,
        target_timing: str = "per-step",
        feedback_key: Any = None,
        feedback_scale: float = 0.1,
        scope: str = "diagonal",
        trace_dtype: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(
            B_list=B_list,
            target_timing=target_timing,
            feedback_key=feedback_key,
            feedback_scale=feedback_scale,
            scope=scope,
            trace_dtype=trace_dtype,
        )
        super().__init__(model, rule, name=name, **settings)

    @staticmethod
    def rule(
        *,
        B_list: Any = None,
        target_timing: str = "per-step",
        feedback_key: Any = None,
        feedback_scale: float = 0.1,
        scope: str = "diagonal",
        trace_dtype: Any = None,
    ) -> Rule:
        """The parts of this algorithm."""
        timing = _options.one_of("target_timing", target_timing, ("per-step", "sequence-end"))
        exact = _options.one_of("scope", scope, ("diagonal", "exact")) == "exact"
        if B_list is None and feedback_key is None:
            raise UsageError(
                problem(
                    "OSTTP needs its feedback matrices.",
                    expected="B_list, or feedback_key to draw them",
                    do="pass feedback_key=0, say",
                )
            )
        weights = None if B_list is None else tuple(np.asarray(getattr(b, "B", b)) for b in B_list)
        seed = 0 if feedback_key is None else _options.seed("feedback_key", feedback_key)
        dtype = _options.trace_dtype(trace_dtype)
        edit = TargetProjection(seed, _options.positive("feedback_scale", feedback_scale), weights)
        why = (
            "use vjp_method='single-step': BPTT inside a window would follow the true error and "
            "the traces the target"
        )
        return Rule(
            "OSTTP",
            WithinLayer(dtype) if exact else PerParameter(dtype),
            (edit,),
            why,
            target_timing=timing,
        )
