"""OTTT: online training through time, with a presynaptic trace alone."""

from typing import Any

import brainstate

from ..core._errors import UsageError, problem
from ..core.engine import Rule
from ..core.traces import Presynaptic
from ..frontends.brainstate import ETraceVjpAlgorithm
from . import _options


class OTTT(ETraceVjpAlgorithm):
    r"""Online training through time.

    .. math::

        \hat a^t = \lambda \hat a^{t-1} + x^t, \qquad \nabla_W L = \sum_t g_u^t \otimes \hat a^t,
        \qquad g_u^t = \frac{\partial L^t}{\partial u^t}

    with :math:`g_u` the derivative at the weight's output, through the nodes of time t.
    :math:`\lambda` is the leak of the *post*synaptic membrane. Exact for a single-state leaky layer
    with a detached reset under a memoryless readout.

    Memory: O(B I). Time: O(B I O).

    Args:
        model: a one-step brainstate module whose states are initialised.
        leak: :math:`\lambda`: a number in [0, 1]; one for each state group, as numbered in the
            report; or 'model', to read it from the model where it is one constant.
        mode: 'A' to update once per sequence, 'O' at every step. It changes no gradient: it is what
            `etrace_fit` does.
        bias_trace: whether biases accumulate too (the paper's do not).
        trace_dtype: dtype of the traces; by default that of y, at least float32.
        name: the module's name.
        **settings: `control_flow`; see `ETraceVjpAlgorithm`.

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
    >>> learner = braintrace.compile(cell, braintrace.OTTT, xs[0], params=params, carry=h, leak=0.5)
    >>> gradients, *_ = learner.etrace_grad(
    ...     params, learner.init(params, h), xs, loss_fn=lambda out: out.sum(-1), reduction="sum"
    ... )
    >>> gradients["w"].tolist()  # exact here: the leak is the neurons' own
    [[6.125, 6.125, 6.125], [6.125, 6.125, 6.125]]
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: brainstate.nn.Module,
        leak: Any = None,
        *,
        mode: str = "A",
        bias_trace: bool = False,
        trace_dtype: Any = None,
        name: str | None = None,
        **settings: Any,
    ):
        rule = self.rule(leak=leak, mode=mode, bias_trace=bias_trace, trace_dtype=trace_dtype)
        super().__init__(model, rule, name=name, **settings)
        self.mode = _options.one_of("mode", mode, ("A", "O"))

    @staticmethod
    def rule(
        *, leak: Any = None, mode: str = "A", bias_trace: bool = False, trace_dtype: Any = None
    ) -> Rule:
        """The parts of this algorithm."""
        _options.one_of("mode", mode, ("A", "O"))
        if leak is None:
            raise UsageError(
                problem(
                    "OTTT needs the leak of the membrane.",
                    expected="a number in [0, 1], one for each group, or 'model'",
                    do="pass leak=0.5, say, or leak='model' to read it from the model",
                )
            )
        if leak == "model":
            leaks = None
        else:
            leaks = tuple(
                _options.decay("leak", v, one=True)
                for v in (leak if isinstance(leak, tuple | list) else (leak,))
            )
        carrier = Presynaptic(leaks, bool(bias_trace), dtype=_options.trace_dtype(trace_dtype))
        return Rule("OTTT", carrier, multi_step_problem=SINGLE, schedule=mode.upper())


SINGLE = (
    "use vjp_method='single-step': the trace holds no dynamics that BPTT inside a window "
    "could continue"
)
