"""The linear recurrent unit: a diagonal, complex state, held as its two parts."""

import math
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core._domains import number
from ..core._errors import UsageError
from ._arguments import Stateful, features


class LRUCell(Stateful):
    """The linear recurrent unit (Orvieto et al. 2023, "Resurrecting recurrent neural networks for
    long sequences").

        lambda = exp(-exp(nu_log) + i exp(theta_log))
        h_t    = lambda * h_{t-1} + exp(gamma_log) * (B x_t)    h, lambda in C^n, B in C^(n x d)
        y_t    = Re(C h_t) + D * x_t                            C in C^(d x n), D in R^d

    Every parameter but C and D reaches later states through its own neuron alone: D-RTRL is exact.

    Args:
        d_model: d, the number of inputs and of outputs.
        d_hidden: n, the number of complex states.
        r_min, r_max: |lambda| is drawn from the ring between them, uniformly over its area.
        max_phase: the phase of lambda is drawn from [0, max_phase), in radians.
        name: of the module.

    The state, B and C are held as their real and imaginary parts: `h_re` and `h_im`, (batch, n);
    linear layers `B_re`, `B_im`, of standard deviation d^(-1/2), and `C_re`, `C_im`, of n^(-1/2).

    Raises:
        UsageError: unless 0 <= r_min < r_max <= 1 and max_phase > 0.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.LRUCell(d_model=3, d_hidden=8)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 3)
    """

    h_re: Any  # a HiddenState
    h_im: Any
    _states = ("h_re", "h_im")

    def __init__(
        self,
        d_model: int,
        d_hidden: int,
        r_min: float = 0.0,
        r_max: float = 1.0,
        max_phase: float = 6.28,
        name: str | None = None,
    ):
        super().__init__(name=name)
        if not (0 <= number(r_min) < number(r_max) <= 1 and 0 < number(max_phase) < np.inf):
            raise UsageError(
                "No ring to draw the eigenvalues from.",
                got=f"r_min={r_min}, r_max={r_max}, max_phase={max_phase}",
                expected="0 <= r_min < r_max <= 1 and max_phase > 0",
            )
        self.d_model, self.d_hidden = features(d_model, "d_model"), features(d_hidden, "d_hidden")
        self.in_size = self.out_size = (self.d_model,)
        uniform = lambda: np.asarray(brainstate.random.uniform(size=self.d_hidden), np.float64)
        area = r_min**2 + uniform() * (r_max**2 - r_min**2)
        size = np.sqrt(np.clip(area, 1e-12, 1 - 1e-7))  # |lambda|, inside the ring
        parameter = lambda v: brainstate.ParamState(jnp.asarray(v, brainstate.environ.dftype()))
        self.nu_log = parameter(np.log(-np.log(size)))
        self.theta_log = parameter(np.log(np.maximum(max_phase * uniform(), 1e-8)))
        self.gamma_log = parameter(0.5 * np.log1p(-(size**2)))
        for part in ("re", "im"):
            setattr(self, f"B_{part}", _linear(self.d_model, self.d_hidden))
            setattr(self, f"C_{part}", _linear(self.d_hidden, self.d_model))
        self.D = parameter(brainstate.random.normal(size=self.d_model))

    def _initial(self, batch_size: int | None) -> jax.Array:
        shape = (self.d_hidden,) if batch_size is None else (batch_size, self.d_hidden)
        return jnp.zeros(shape, self.nu_log.value.dtype)

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """One step: y_t."""
        decay, gain = jnp.exp(-jnp.exp(self.nu_log.value)), jnp.exp(self.gamma_log.value)
        phase = jnp.exp(self.theta_log.value)
        cos, sin = decay * jnp.cos(phase), decay * jnp.sin(phase)
        re, im = self.h_re.value, self.h_im.value
        self.h_re.value = cos * re - sin * im + gain * self.B_re(x)
        self.h_im.value = cos * im + sin * re + gain * self.B_im(x)
        return self.C_re(self.h_re.value) - self.C_im(self.h_im.value) + self.D.value * x


def _linear(inputs: int, outputs: int) -> Any:
    normal = brainstate.nn.init.Normal(0.0, 1 / math.sqrt(inputs))
    return brainstate.nn.Linear(inputs, outputs, w_init=normal, b_init=None)
