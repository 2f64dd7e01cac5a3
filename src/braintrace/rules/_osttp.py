"""OSTTP: online spatio-temporal learning with target projection."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import positive
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import TargetProjection
from ..core.traces import PerParameter, WithinLayer
from ._algorithm import Algorithm, Compared
from ._options import Seed, floating, matrices, one_of, option, seed
from ._registry import register_algorithm


@register_algorithm("osttp")
@dataclasses.dataclass(frozen=True)
class OSTTPRule(Algorithm):
    r"""Online spatio-temporal learning with target projection.

    .. math::

        \nabla_{\theta_l} L = \sum_t (-B_l\, y^{*t}) \circ e_l^t

    The traces of OSTL with a learning signal that is the projected target :math:`y^*`, at the exits
    (spikes) of each hidden group; the output layer learns from its true error. No error travels
    back through the layers. Descent raises the projection of the activity on the target. A zero
    target gives no gradient to hidden weights.

    Memory: O(B I O S) (diagonal scope), O(B n |W|) (exact). Time: O(B I O S^2) a step.

    Args:
        B_list: matrices (n_target, n_layer), one for each hidden group that is read, in the order
            of the program; or None to draw them with `feedback_key`.
        target_timing: 'per-step': `y_target` has a value for each step, (T, B, n_target) in a
            driver; 'sequence-end': `y_target` is (B, n_target) and acts at the last step of each
            sample that the mask counts.
        feedback_key: whole number or PRNG key.
        feedback_scale: standard deviation of drawn matrices.
        scope: 'diagonal' for the traces without recurrence, 'exact' for the exact influence within
            each layer.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: without B_list and feedback_key; for a missing or ill-shaped `y_target`.

    References:
        Ortner et al., IEEE AICAS 2023, arXiv 2304.05124. The sign is that of a descent direction.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := jnp.tanh(0.5 * h + x @ p["w"])), h @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> h, x = jnp.zeros((4, 3)), jnp.ones((4, 2))
    >>> learner = braintrace.compile(cell, "osttp", x, params=params, carry=h, feedback_key=0)
    >>> state, out = learner.update(params, learner.init(params, h), x, y_target=jnp.ones((4, 1)))
    >>> out.shape
    (4, 1)
    """

    name = "OSTTP"
    multi_step = False

    B_list: Any = option(None, matrices, compare=False)
    _: dataclasses.KW_ONLY
    target_timing: str = option("per-step", one_of("per-step", "sequence-end"))
    feedback_key: Seed = option(None, seed)
    feedback_scale: float = option(0.1, positive)
    scope: str = option("diagonal", one_of("diagonal", "exact"))
    trace_dtype: DTypeLike | None = option(None, floating)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.B_list is None and self.feedback_key is None:
            raise UsageError(
                "OSTTP needs its feedback matrices.",
                got="no B_list and no feedback_key",
                expected="B_list, or feedback_key to draw them",
                do="pass feedback_key=0, say",
            )

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"feedback_key": 0}, "O(B |W|)", "projected target, no error from above"),)

    def parts(self) -> Rule:
        carrier = WithinLayer if self.scope == "exact" else PerParameter
        return Rule(
            "OSTTP",
            carrier(self.trace_dtype),
            (TargetProjection(self.feedback_key, self.feedback_scale, self.B_list),),
            "use vjp_method='single-step': BPTT inside a window would follow the true error and "
            "the traces the target",
            target_timing=self.target_timing,
        )
