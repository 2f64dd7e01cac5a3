"""SK-RTRL: local traces, a low-rank sketch of what they leave out, and a running bound."""

import dataclasses

from jax.typing import DTypeLike

from ..core._domains import flag, whole
from ..core.engine import Rule
from ..core.traces import Sketch
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


def _rank(name: str, value: object) -> int:
    return whole(name, value, least=0)


@register_algorithm("sk_rtrl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SKRTRLRule(Algorithm):
    r"""The traces of D-RTRL, a low-rank sketch of what they leave out, and a bound on the error.

    With h all the hidden state of a sample (n elements, of all layers), J the exact influence of
    the weights on it and S that of D-RTRL's traces, which is position by position,

    .. math::

        E^t &= D^t (S^{t-1} + L^{t-1} R^{t-1}) + I^t - S^t \\
        L^t R^t &= \text{the best approximation of } E^t \text{ of rank } r \\
        e^t &= \|D^t\|_2\, e^{t-1} + \|E^t - L^t R^t\|_F , \qquad
        \|J^t - S^t - L^t R^t\|_F \le e^t \\
        \nabla_W L &= \sum_t a^t (S^{t-1} + L^{t-1} R^{t-1}) + c^t

    with D and I the derivatives of the new state with respect to the old one and to the weights,
    a the derivative of the loss of step t with respect to the state before it, and c its gradient
    within the step. So each step itself is exact, and its gradient is off by at most
    :math:`\|a^t\| e^{t-1}`: `Info.by_step` has this bound for every step and sample, beside the
    norm of the gradient. Where :math:`\|D\|_2` stays above 1 the bound grows without end and says
    nothing any more: `ErrorBound.informative`.

    Memory: O(B (|theta| + r (|theta| + n))) between steps, and O(B n (n + |y|)) while they are
        moved, for y all that weights bring. Time: O(B (n |theta| + n^3)) a step; the bound takes
        about a third of it.

    With `rank=0` the traces are those of D-RTRL, and so is the gradient where no product brings a
    layer's own old state into it; where one does, this rule follows it through the last step, which
    D-RTRL does not. With r at least n the gradient is that of BPTT. Samples that meet are refused,
    as by RTRL. The first factor of a weight in two factors has no trace of its own: all of its
    influence is in the sketch.

    Args:
        rank: r, a whole number of at least 0; what is beyond n is n.
        certificate: whether the bound is carried.
        trace_dtype: dtype of the traces and of R; by default that of y, at least float32.

    Raises:
        UsageError: for an option that is not one of these.
        CompilationError: for a model whose samples meet.

    References:
        Certified Low-Rank RTRL (2026).
        Deviation: S is D-RTRL's trace of any cell where the paper has SnAp-1 of a vanilla network;
        the gradient of a step reads the influence before it through the exact step; the growth of
        the bound is the spectral norm of D, not min(Frobenius norm, sqrt of the product of the
        column and row norms), which is never less; nothing is projected away beforehand.

    >>> import braintrace, jax.numpy as jnp
    >>> def cell(p, h, x):
    ...     h = jnp.tanh(0.3 * h @ p["u"] + x @ p["w"])
    ...     return h, h
    >>> params, h = {"w": jnp.ones((2, 3)), "u": jnp.eye(3)}, jnp.zeros((1, 3))
    >>> xs, loss = jnp.ones((5, 1, 2)), lambda out: out.sum(-1)
    >>> learner = braintrace.compile(cell, "sk_rtrl", xs[0], params=params, carry=h, rank=2)
    >>> gradients, _, info = learner.etrace_grad(params, learner.init(params, h), xs, loss_fn=loss)
    >>> info.by_step.error.shape, bool(info.by_step.informative.all())
    ((5, 1), True)
    """

    name = "SK_RTRL"

    rank: int = option(4, _rank)
    certificate: bool = option(True, flag)
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"rank": 4}, "O(r B |W|)", "all paths, in r directions"),)

    def parts(self) -> Rule:
        return Rule(
            "SK-RTRL", Sketch(self.rank, self.certificate, self.trace_dtype), traces_all_state=True
        )
