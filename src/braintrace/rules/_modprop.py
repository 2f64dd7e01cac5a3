"""ModProp: signals over several synapses, through constant slopes."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import finite, fraction, whole
from ..core.engine import Rule
from ..core.signals import Between, ScalarLeak
from ..core.traces import Taps
from ._algorithm import Algorithm, Compared
from ._mdgl import types_of_neurons
from ._options import floating, option
from ._registry import register_algorithm


def _leaks(name: str, value: Any) -> Any:
    """One for all groups, or one for each; 'model' for the model's own."""
    if isinstance(value, str) and value == "model":
        return value
    given = value if isinstance(value, tuple | list) else (value,)
    return tuple(fraction(name, v, one=True) for v in given)


@register_algorithm("modprop")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ModPropRule(Algorithm):
    r"""Credit over several steps and synapses, through taps of a constant matrix.

    .. math::

        \nabla_W L = \sum_t \sum_{k<S} \big(f^{t-k} \circ M^k \delta^t\big) \otimes x^{t-k},
        \qquad M = \eta I + \mu \bar W

    with :math:`\delta^t = \partial L^t / \partial h^t`, f the slope of the state in its drive, and
    :math:`\bar W_{pj}` the weight from neuron p to neuron j, or its mean over types. A signal goes
    back through the leak :math:`\eta` of a neuron and through its synapses with the constant
    :math:`\mu` in place of the slopes of the steps passed: so of a linear network, with
    :math:`\mu` its slope and as many taps as steps, it is BPTT.

    Memory: O(B S (I + O)) for a weight, O(n^2) for a layer. Time: O(B S (I O + n^2)) a step.

    Args:
        mu: :math:`\mu`, the slope of all neurons at all times.
        taps: S, the number of steps that a signal reaches back, the present one included.
        leak: :math:`\eta` in [0, 1]: a number; one for each state group, as numbered in the report;
            or 'model', to read it from the model where it is one constant.
        types: None, for the weights themselves; or the type of each neuron of a recurrent layer, as
            whole numbers: the mean of the weights between two types stands for each. Or a list of
            such arrays, one for each layer with recurrent weights.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: for options out of range.
        CompilationError: for neurons of several states, layers that feed earlier ones, recurrent
            operations that are no product of the layer's activity with a weight, or a leak='model'
            that is not one constant.

    `report` warns where the spectral radius of M is above 1 with the weights as they were compiled:
    signals then grow with each tap.

    References:
        Liu et al., NeurIPS 2022, arXiv 2206.01338. Deviation: recurrent weights are those of their
        own step, and f is the model's own.

    >>> import braintrace, jax.numpy as jnp
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + h @ p["u"] + x @ p["w"]
    ...     return h, h @ p["o"]
    >>> params = {"w": jnp.ones((2, 3)), "u": 0.1 * jnp.ones((3, 3)), "o": jnp.ones((3, 1))}
    >>> given, x = {"params": params, "carry": jnp.zeros((1, 3))}, jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "modprop", x, mu=1.0, taps=4, **given)
    >>> learner.rule.carrier.leaks
    (0.5,)
    """

    name = "ModProp"
    multi_step = False

    mu: float = option(0.25, finite)
    taps: int = option(5, whole)
    leak: Any = option("model", _leaks, needed=True)
    types: Any = option(None, types_of_neurons, compare=False)
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"leak": leak}, "O(B S (I + O))", "S steps, constant slopes"),)

    def parts(self) -> Rule:
        leaks = None if self.leak == "model" else self.leak
        carrier = Taps(leaks, self.mu, self.taps, self.trace_dtype)
        edits = Between(leaks, self.mu, self.types), ScalarLeak(1.0)
        why = (
            "use vjp_method='single-step': the taps hold no dynamics that BPTT inside a window "
            "could continue"
        )
        return Rule("ModProp", carrier, edits, why, traces_all_state=True)
