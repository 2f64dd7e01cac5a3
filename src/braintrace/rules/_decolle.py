"""DECOLLE: deep continuous local learning."""

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from ..core._domains import positive
from ..core._errors import UsageError
from ..core.engine import Rule
from ..core.signals import LocalLoss
from ..core.traces import PerParameter
from ._algorithm import Algorithm, Compared
from ._options import Seed, floating, matrices, one_of, option, seed
from ._registry import register_algorithm


@register_algorithm("decolle")
@dataclasses.dataclass(frozen=True, kw_only=True)
class DECOLLERule(Algorithm):
    r"""Deep continuous local learning: each layer learns from a loss of its own, that of a fixed
    random readout, at each step.

    .. math::

        r_l^t = G_l z_l^t, \qquad
        \nabla_{\theta_l} L = \sum_t \Big(G_l^\top \frac{\partial \ell(r_l^t, y^{*t})}
        {\partial r_l^t}\Big) \circ e_l^t

    with e the eligibility of D-RTRL at the activity z (spikes), and :math:`y^*` the target, the
    same for all layers. No gradient passes between layers; the model's own readout learns from its
    true error. For the published neuron, two filters of the input and a detached refractory
    current, e is the slope of the spike times the filtered input, and the gradient is that of BPTT
    of the local losses with the inputs of each layer stopped.

    Memory: O(B I O S). Time: O(B I O S^2) a step.

    Args:
        G_list: matrices (n_layer, n_target), one for each activity that is read, in the order of
            the program; or None to draw them with `readout_key`.
        readout_key: whole number or PRNG key.
        readout_scale: G is drawn as N(0, 1) times this over the square root of n_layer.
        local_loss: 'smooth_l1', or 'mse'; the mean over targets.
        trace_dtype: dtype of the traces; by default that of y, at least float32.

    Raises:
        UsageError: without G_list and readout_key; for a missing or ill-shaped `y_target`.

    References:
        Kaiser, Mostafa and Neftci, Frontiers in Neuroscience 14:424 (2020), arXiv 1811.10766.
        Deviation: the neuron is the model's own, so that the trace is one for each weight, also
        where the published one would be that of the input; warm-up steps are those that the mask
        leaves out.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda p, h, x: ((h := jnp.tanh(0.5 * h + x @ p["w"])), h @ p["o"])
    >>> params = {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))}
    >>> h, x = jnp.zeros((4, 3)), jnp.ones((4, 2))
    >>> learner = braintrace.compile(cell, "decolle", x, params=params, carry=h, readout_key=0)
    >>> state, out = learner.update(params, learner.init(params, h), x, y_target=jnp.ones((4, 1)))
    >>> out.shape
    (4, 1)
    """

    name = "DECOLLE"
    multi_step = False

    G_list: Any = option(None, matrices, compare=False)
    readout_key: Seed = option(None, seed)
    readout_scale: float = option(1.0, positive)
    local_loss: str = option("smooth_l1", one_of("smooth_l1", "mse"))
    trace_dtype: DTypeLike | None = option(None, floating)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.G_list is None and self.readout_key is None:
            raise UsageError(
                "DECOLLE needs its local readouts.",
                got="no G_list and no readout_key",
                expected="G_list, or readout_key to draw them",
                do="pass readout_key=0, say",
            )

    @classmethod
    def compared(cls, leak: float) -> tuple[Compared, ...]:
        return (Compared({"readout_key": 0}, "O(B |W|)", "local losses, no error from above"),)

    def parts(self) -> Rule:
        smooth = self.local_loss == "smooth_l1"
        return Rule(
            "DECOLLE",
            PerParameter(self.trace_dtype),
            (LocalLoss(self.readout_key, self.readout_scale, smooth, self.G_list),),
            "use vjp_method='single-step': BPTT inside a window would follow the true error and "
            "the traces the local losses",
            target_timing="per-step",
        )
