"""OTTT: online training through time, with a presynaptic trace alone."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import flag, fraction
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.traces import Presynaptic
from ._algorithm import Algorithm, Compared
from ._options import floating, one_of, option
from ._registry import register_algorithm


def _leaks(name: str, value: Any) -> Any:
    """One for all groups, or one for each; 'model' for the model's own."""
    if value is None:
        raise UsageError(
            "OTTT needs the leak of the membrane.",
            got="no leak",
            expected="a number in [0, 1], one for each group, or 'model'",
            do="pass leak=0.5, say, or leak='model' to read it from the model",
        )
    given = value if isinstance(value, tuple | list) else (value,)
    if isinstance(value, str) and value == "model":
        return value
    return tuple(fraction(name, v, one=True) for v in given)


@register_algorithm("ottt")
@dataclasses.dataclass(frozen=True)
class OTTTRule(Algorithm):
    r"""Online training through time.

    .. math::

        \hat a^t = \lambda \hat a^{t-1} + x^t, \qquad \nabla_W L = \sum_t g_u^t \otimes \hat a^t,
        \qquad g_u^t = \frac{\partial L^t}{\partial u^t}

    with :math:`g_u` the derivative at the weight's output, through the nodes of time t.
    :math:`\lambda` is the leak of the *post*synaptic membrane. Exact for a single-state leaky layer
    with a detached reset under a memoryless readout.

    Memory: O(B I). Time: O(B I O).

    Args:
        leak: :math:`\lambda`: a number in [0, 1]; one for each state group, as numbered in the
            report; or 'model', to read it from the model where it is one constant.
        mode: 'A' to update once per sequence, 'O' at every step. It changes no gradient: it is what
            `etrace_fit` does.
        bias_trace: whether biases accumulate too (the paper's do not).
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: without a leak, or with one out of range.
        CompilationError: for leak='model' where the leak is not one constant.

    References:
        Xiao et al., NeurIPS 2022, arXiv 2210.04195.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "ottt", xs[0], params=params, carry=h, leak=0.5)
    >>> state, loss = learner.init(params, h), lambda out: out.sum(-1)
    >>> gradients, *_ = learner.etrace_grad(params, state, xs, loss_fn=loss, reduction="sum")
    >>> gradients["w"].tolist()  # exact here: the leak is the neurons' own
    [[6.125, 6.125, 6.125], [6.125, 6.125, 6.125]]
    """

    name = "OTTT"
    multi_step = False

    leak: Any = option(None, _leaks, needed=True)
    _: dataclasses.KW_ONLY
    mode: str = option("A", one_of("A", "O"))
    bias_trace: bool = option(False, flag)
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"leak": leak}, "O(B I)", "a constant leak"),)

    def parts(self) -> Rule:
        leaks = None if self.leak == "model" else self.leak
        carrier = Presynaptic(leaks, self.bias_trace, dtype=self.trace_dtype)
        why = (
            "use vjp_method='single-step': the trace holds no dynamics that BPTT inside a window "
            "could continue"
        )
        return Rule("OTTT", carrier, multi_step_problem=why, schedule=self.mode)
