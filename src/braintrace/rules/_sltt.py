"""Rules without a trace: the instantaneous gradient, and spatial learning through time."""

import dataclasses

from ..core._domains import whole
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import RandomSteps
from ..core.traces import NoTrace
from ._algorithm import Algorithm, Compared
from ._options import Seed, option, seed
from ._registry import register_algorithm

_MULTI_STEP = (
    "use vjp_method='single-step': the rule leaves out what passes from step to step, and BPTT "
    "inside a window would follow it"
)


@register_algorithm("instantaneous")
@dataclasses.dataclass(frozen=True, kw_only=True)
class InstantaneousRule(Algorithm):
    r"""No trace: each step's loss has the gradient of that step alone.

    .. math::

        \nabla_W L = \sum_t \frac{\partial L^t}{\partial y^t} \otimes x^t

    with y the weight's output, through the nodes of time t. It is BPTT with the state stopped at
    each step: a baseline, for what a rule's traces are worth. Exact for parameters that act on no
    later step.

    Memory: none. Time: O(B I O), one product per step or window.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "instantaneous", xs[0], params=params, carry=h)
    >>> state, loss = learner.init(params, h), lambda out: out.sum(-1)
    >>> gradients, *_ = learner.etrace_grad(params, state, xs, loss_fn=loss, reduction="sum")
    >>> gradients["w"].tolist()  # 6.125 with a trace
    [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]
    """

    name = "Instantaneous"
    multi_step = False

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "0", "the same step alone"),)

    def parts(self) -> Rule:
        return Rule("instantaneous", NoTrace(), multi_step_problem=_MULTI_STEP)


@register_algorithm("sltt")
@dataclasses.dataclass(frozen=True, kw_only=True)
class SLTTRule(Algorithm):
    r"""Spatial learning through time: what passes from step to step has no gradient.

    .. math::

        \nabla_W L = \sum_{t \in S} g_u^t \otimes x^t

    with :math:`g_u` the derivative of the loss of step t at the weight's output, down through the
    layers at time t, and S all steps: the gradient of 'instantaneous'. With `k` it is SLTT-K: of
    each `steps` consecutive steps S has k at random, and the losses of the others have no gradient,
    the readout's neither. A gradient is not scaled up for it. The draws are counted in steps of the
    state: one that goes on has others, a new one the first again.

    Memory: none. Time: O(B I O), one product per step or window; `k` saves none of it here.

    Args:
        k: None for all steps, or how many are differentiated.
        steps: of how many, the length of a sequence as a rule; needed with `k`.
        steps_key: whole number or PRNG key of the draws.

    Raises:
        UsageError: for `k` without `steps`, or above it.

    References:
        Meng et al., ICCV 2023, arXiv 2302.14311.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, xs = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((6, 1, 2))
    >>> learner = braintrace.compile(cell, "sltt", xs[0], params=w, carry=h, k=1, steps=3)
    >>> state, loss = learner.init(w, h), lambda out: out.sum(-1)
    >>> gradients, *_ = learner.etrace_grad(w, state, xs, loss_fn=loss, reduction="sum")
    >>> gradients[0].tolist()  # two of six steps
    [2.0, 2.0, 2.0]
    """

    name = "SLTT"
    multi_step = False

    k: int | None = option(None, whole)
    steps: int | None = option(None, whole)
    steps_key: Seed = option(0, seed)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k is not None and (self.steps is None or self.k > self.steps):
            raise UsageError(
                "Invalid k.",
                got=f"k={self.k}, steps={self.steps}",
                expected="k of steps, at most as many",
                do="pass steps=, the length of a sequence",
            )

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "0", "the same step alone"),)

    def parts(self) -> Rule:
        some: tuple[RandomSteps, ...] = ()
        if self.k is not None and self.steps is not None:
            some = (RandomSteps(self.k, self.steps, self.steps_key),)
        return Rule("SLTT", NoTrace(), some, _MULTI_STEP)
