"""UORO: unbiased online recurrent optimisation."""

import dataclasses

from jax.typing import DTypeLike

from ..core.engine import Rule
from ..core.traces import RankOne
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


@register_algorithm("uoro")
@dataclasses.dataclass(frozen=True, kw_only=True)
class UORORule(Algorithm):
    r"""Unbiased online recurrent optimisation: a random product of two vectors whose mean is the
    influence of all parameters on all the hidden state.

    .. math::

        J^t \approx s^t \otimes \theta^t, \qquad
        s^t = \rho_0 D^t s^{t-1} + \rho_1 \nu^t, \qquad
        \theta^t = \frac{\theta^{t-1}}{\rho_0} + \frac{\nu^t I^t}{\rho_1}, \qquad
        \nabla_\theta L = \sum_t \left(\frac{\partial L^t}{\partial h^{t-1}} \cdot s^{t-1}\right)
        \theta^{t-1} + \frac{\partial L^t}{\partial\theta}

    with h all that the model carries for one sample, the states of all layers, D and I the
    derivatives of a step with respect to the state before and to the parameters, and
    :math:`\nu^t` a sign for each element of h, drawn for each sample and step. The scales
    :math:`\rho_0 = \sqrt{\|\theta\| / \|D s\|}` and :math:`\rho_1 = \sqrt{\|\nu I\| / \|\nu\|}`
    keep the variance low. The mean over keys is the gradient of BPTT at fixed parameters, in stacks
    of any depth; one estimate is noisy, so learning rates are small and runs long. The key is that
    of `learner.init(params, carry, key=...)`.

    Memory: O(B (n + |theta|)) for n state elements of one sample. Time: O(B |theta|), as for two
        reverse passes.

    Args:
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    References:
        Tallec and Ollivier, ICLR 2018, arXiv 1702.05043.

    >>> import jax, jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "uoro", xs[0], params=params, carry=h)
    >>> def gradient(key):
    ...     state, loss = learner.init(params, h, key=key), lambda out: out.sum(-1)
    ...     return learner.etrace_grad(params, state, xs, loss_fn=loss, reduction="sum")[0]["w"]
    >>> estimates = jax.vmap(gradient)(jax.random.split(jax.random.key(0), 1000))
    >>> bool(jnp.all(jnp.abs(estimates.mean(0) - 6.125) < 0.5))  # BPTT has 6.125
    True
    """

    name = "UORO"

    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B (n + |theta|))", "all layers, in the mean over keys"),)

    def parts(self) -> Rule:
        return Rule("UORO", RankOne(self.trace_dtype))
