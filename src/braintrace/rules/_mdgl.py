"""MDGL: local eligibility, and a signal that goes one step back from neuron to neuron."""

import dataclasses
from typing import Any

import numpy as np
from jax.typing import DTypeLike

from ..core._domains import described, fraction
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import Edit, Modulation, OutputFilter
from ..core.traces import OneHop
from ._algorithm import Algorithm, Compared
from ._options import floating, option
from ._registry import register_algorithm


def types_of_neurons(name: str, value: Any) -> tuple[np.ndarray, ...]:
    """One array for each recurrent product; an array alone is that of the only one."""
    several = isinstance(value, tuple | list) and value and all(np.ndim(v) == 1 for v in value)
    found = [np.asarray(v) for v in (value if several else [value])]
    for types in found:
        if types.ndim != 1 or not types.size or types.dtype.kind not in "iu":
            raise UsageError(
                f"Invalid {name}.",
                got=described(value),
                expected="the type of each neuron as a whole number, or a list of such arrays, one "
                "for each recurrent product",
                do="pass np.array([0, 0, 1]), say",
            )
    return tuple(found)


@register_algorithm("mdgl")
@dataclasses.dataclass(frozen=True, kw_only=True)
class MDGLRule(Algorithm):
    r"""Multidigraph learning: e-prop with a signal from each neuron to those that feed it.

    .. math::

        \nabla_{W_{pq}} L = \sum_t L_p^t e_{pq}^t
            + \sum_t \Big(\sum_j L_j^t \psi_j^t W_{jp}\Big) e_{pq}^{t-1}, \qquad
        e^t = \frac{\partial z^t}{\partial h^t} \epsilon^t, \quad
        \epsilon^t = D^t \epsilon^{t-1} + f^t x^t

    with :math:`L_j^t` the derivative of the loss of time t by the activity of neuron j, and
    :math:`W_{jp}` the weight from p to j. The second term is the path over one synapse and step:
    :math:`z_p^{t-1}` drives j, and j the loss at once; what stays in the memory of j is left out.
    The signal of a step is thus the derivative of its loss by the state before it, along every path
    of the step, products included, and the traces are those of D-RTRL. Where nothing recurrent is
    left (zero weights) it is e-prop, with `kappa_filter_decay=0` D-RTRL.

    Memory: O(B I O S), and O(B I O) for a filter. Time: O(B I O S^2) a step, as D-RTRL.

    Args:
        types: None, for the weights themselves; or the type of each neuron of a recurrent layer, as
            whole numbers: the signal then goes through the mean of the weights between two types.
            Or a list of such arrays, one for each recurrent product in the order of the program.
        kappa_filter_decay: :math:`\kappa` in [0, 1): both e are leaky sums of it, as in e-prop,
            for a leaky readout; 0 for no filter.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: for options out of range, or a multi-step window with types or a filter.
        CompilationError: for types that are not those of a product of neurons with each other.

    References:
        Liu et al., PNAS 118:e2111821118 (2021). Deviation: D keeps the neuron's reset unless the
        model stops it with `stop_gradient`.

    >>> import braintrace, jax.numpy as jnp
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + jnp.tanh(h) @ p["u"] + x @ p["w"]
    ...     return h, jnp.tanh(h) @ p["o"]
    >>> params = {"w": jnp.ones((2, 3)), "u": jnp.ones((3, 3)), "o": jnp.ones((3, 1))}
    >>> given, x = {"params": params, "carry": jnp.zeros((1, 3))}, jnp.ones((1, 2))
    >>> learner = braintrace.compile(cell, "mdgl", x, types=[0, 0, 1], **given)
    >>> str(learner.graph.exactness("['u']"))
    'approximate'
    """

    name = "MDGL"

    types: Any = option(None, types_of_neurons, compare=False)
    kappa_filter_decay: float = option(0.0, fraction)
    trace_dtype: DTypeLike | None = option(None, floating)

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({}, "O(B |W|)", "own-neuron paths, and one synapse"),)

    def parts(self) -> Rule:
        edits: list[Edit] = []
        if kappa := self.kappa_filter_decay:
            edits.append(OutputFilter(kappa))
        if kappa or self.types is not None:
            edits.append(Modulation(kappa, self.types))
        why = (
            "use vjp_method='single-step': inside a window BPTT would follow the weights and the "
            "traces what stands for them"
        )
        carrier = OneHop(self.trace_dtype)
        return Rule("MDGL", carrier, tuple(edits), why if edits else "", traces_all_state=True)
