"""KF-RTRL and OK: random sums of Kronecker products."""

import dataclasses

from jax.typing import DTypeLike

from ..core._domains import whole
from ..core.engine import Rule
from ..core.traces import Kronecker
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


@register_algorithm("kf_rtrl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class KFRTRLRule(Algorithm):
    r"""Kronecker-factored RTRL: a random Kronecker product whose mean is the influence of a weight
    on all the hidden state.

    .. math::

        J^t \approx u^t \otimes A^t, \qquad
        u^t = c_1 p_0 u^{t-1} + c_2 p_1 x^t, \qquad
        A^t = \frac{c_1}{p_0} D^t A^{t-1} + \frac{c_2}{p_1} F^t, \qquad
        \nabla_W L = \sum_t u^{t-1} \otimes
        \left(\frac{\partial L^t}{\partial h^{t-1}} A^{t-1}\right)
        + \frac{\partial L^t}{\partial W}

    with h all that the model carries for one sample, the states of all layers, D the derivative of
    a step with respect to the state before, x the data of the weight's operation, F that with
    respect to its result, :math:`c_1, c_2` signs drawn for each sample and step, and
    :math:`p_0 = \sqrt{\|D A\| / \|u\|}, p_1 = \sqrt{\|F\| / \|x\|}`. Operations whose results
    add up (the input's, the recurrent one, a bias) have one product, with their data side by side;
    a gate whose result is not added has one of its own. It is not asked that F is diagonal, so that
    fused gates, stacks, convolutions and embeddings have a product, too; where an operation shares
    a weight over places, u and A are as large as its data and its result. A parameter that acts
    element by element, or is added alone, is exact at the same cost. The mean over keys is the
    gradient of BPTT at fixed parameters. The key is that of `learner.init(params, carry, key=...)`.

    Memory: O(B (I + n O)) for n state elements of one sample. Time: O(B n^2 O), and n reverse
        passes, a step.

    Args:
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    References:
        Mujika, Meier and Steger, NeurIPS 2018, arXiv 1805.10842.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "kf_rtrl", xs[0], params=params, carry=h)
    >>> state, loss = learner.init(params, h, key=1), lambda out: out.sum(-1)
    >>> gradients, *_ = learner.etrace_grad(params, state, xs, loss_fn=loss, reduction="sum")
    >>> gradients["w"].shape, str(learner.graph.exactness("['w']"))
    ((2, 3), 'approximate')
    """

    name = "KF_RTRL"

    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B (I + n O))", "all layers, in the mean over keys"),)

    def parts(self) -> Rule:
        return Rule("KF_RTRL", Kronecker(1, optimal=False, dtype=self.trace_dtype))


@register_algorithm("ok_rtrl")
@dataclasses.dataclass(frozen=True)
class OKRTRLRule(Algorithm):
    r"""Optimal Kronecker-sum approximation of RTRL: the sum of a few Kronecker products with the
    least variance of all that have the influence as their mean.

    .. math::

        J^t \approx \sum_{i=1}^{r} u_i^t \otimes A_i^t \quad\text{out of}\quad
        \sum_{i=1}^{r} u_i^{t-1} \otimes D^t A_i^{t-1} + x^t \otimes F^t

    as in `KF_RTRL`, with r products in place of one. Of the r + 1 at the right the singular values
    are found; the large ones are kept as they are, and the small ones mixed, with random signs, to
    one less. An operation with at most r inputs is exact. The mean over keys is the gradient of
    BPTT, and the variance falls with r. The key is that of `learner.init(params, carry, key=...)`.

    Memory: O(B r (I + n O)) for n state elements of one sample. Time: O(B r n^2 O + B r^2 (I + n
        O)), and n reverse passes, a step.

    Args:
        rank: r, at least 1.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: for a rank that is no whole number of at least 1.

    References:
        Benzing, Gauy, Mujika, Martinsson and Steger, ICML 2019, arXiv 1902.03993.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "ok_rtrl", xs[0], params=params, carry=h, rank=2)
    >>> state, loss = learner.init(params, h, key=1), lambda out: out.sum(-1)
    >>> gradients, *_ = learner.etrace_grad(params, state, xs, loss_fn=loss, reduction="sum")
    >>> gradients["w"].tolist()  # exact: there are two inputs
    [[6.125, 6.125, 6.125], [6.125, 6.125, 6.125]]
    """

    name = "OK_RTRL"

    rank: int = option(4, whole)
    _: dataclasses.KW_ONLY
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"rank": 4}, "O(B r (I + n O))", "all layers, in the mean over keys"),)

    def parts(self) -> Rule:
        return Rule("OK_RTRL", Kronecker(self.rank, dtype=self.trace_dtype))
