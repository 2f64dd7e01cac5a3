"""The linear recurrent unit: a diagonal, complex state."""

from typing import Any

import brainstate
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..core._domains import number
from ..core._errors import UsageError
from ._arguments import OneState, features


class LRUCell(OneState):
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

    B and C are held as their real and imaginary parts. The state is complex, (batch, n).

    Raises:
        UsageError: unless 0 <= r_min < r_max <= 1 and max_phase > 0.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.LRUCell(d_model=3, d_hidden=8)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 3)
    """

    h: Any  # the HiddenState

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
        normal = lambda *shape: brainstate.random.normal(size=shape)
        self.nu_log = parameter(np.log(-np.log(size)))
        self.theta_log = parameter(np.log(np.maximum(max_phase * uniform(), 1e-8)))
        self.gamma_log = parameter(0.5 * np.log1p(-(size**2)))
        of_b, of_c = np.sqrt(2 * self.d_model), np.sqrt(self.d_hidden)
        for_b, for_c = (self.d_model, self.d_hidden), (self.d_hidden, self.d_model)
        self.B_re, self.B_im = (parameter(normal(*for_b) / of_b) for _ in range(2))
        self.C_re, self.C_im = (parameter(normal(*for_c) / of_c) for _ in range(2))
        self.D = parameter(normal(self.d_model))

    def _initial(self, batch_size: int | None) -> jax.Array:
        shape = (self.d_hidden,) if batch_size is None else (batch_size, self.d_hidden)
        return jnp.zeros(shape, jnp.result_type(self.nu_log.value, jnp.complex64))

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        """One step: y_t."""
        decay, gain = jnp.exp(-jnp.exp(self.nu_log.value)), jnp.exp(self.gamma_log.value)
        phase = jnp.exp(self.theta_log.value)
        eigenvalue = jax.lax.complex(decay * jnp.cos(phase), decay * jnp.sin(phase))
        driven = jax.lax.complex(gain * (x @ self.B_re.value), gain * (x @ self.B_im.value))
        h = eigenvalue * self.h.value + driven
        self.h.value = h
        return jnp.real(h) @ self.C_re.value - jnp.imag(h) @ self.C_im.value + self.D.value * x
