"""Trace helpers as brainstate modules: an output filter, a presynaptic trace."""

import jax
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..core._domains import array, fraction
from ..core._errors import UsageError
from ..core._precision import widened
from ..core.traces import kappa_step, leaky_step
from ._precision import brainstate


class _Filter(brainstate.nn.Module):
    """A value that is filtered over time, as a brainstate state: at least float32."""

    def __init__(self, init_value: ArrayLike):
        super().__init__()
        self._initial = widened(array("init_value", init_value))
        self.state = brainstate.ShortTermState(self._initial)

    @property
    def value(self) -> jax.Array:
        """The present value."""
        return self.state.value

    def _taken(self, x: ArrayLike) -> jax.Array:
        found = array("x", x)
        if found.shape != self._initial.shape:
            raise UsageError("Invalid x.", got=found.shape, expected=f"shape {self._initial.shape}")
        return found

    def reset_state(self) -> None:
        """Set the value to the first one."""
        self.state.value = self._initial


class KappaFilter(_Filter):
    """A low-pass filter of unit gain: `v <- (1 - kappa) x + kappa v`.

    Args:
        init_value: the first value; its shape is that of x.
        kappa: the decay, in [0, 1).

    >>> import braintrace, jax.numpy as jnp
    >>> low_pass = braintrace.KappaFilter(jnp.zeros(2), kappa=0.5)
    >>> low_pass.update(jnp.ones(2)).tolist(), low_pass.update(jnp.ones(2)).tolist()
    ([0.5, 0.5], [0.75, 0.75])
    """

    __module__ = "braintrace"

    def __init__(self, init_value: ArrayLike, kappa: float):
        super().__init__(init_value)
        self.kappa = fraction("kappa", kappa)

    def update(self, x: PyTree) -> jax.Array:
        """Take in x; return the new value."""
        self.state.value = kappa_step(self.value, self._taken(x), self.kappa)
        return self.value


class PresynapticTrace(_Filter):
    """A leaky sum: `v <- leak v + x`.

    Args:
        init_value: the first value; its shape is that of x.
        leak: in [0, 1].

    >>> import braintrace, jax.numpy as jnp
    >>> trace = braintrace.PresynapticTrace(jnp.zeros(2), leak=0.5)
    >>> trace.update(jnp.ones(2)).tolist(), trace.update(jnp.ones(2)).tolist()
    ([1.0, 1.0], [1.5, 1.5])
    """

    __module__ = "braintrace"

    def __init__(self, init_value: ArrayLike, leak: float):
        super().__init__(init_value)
        self.leak = fraction("leak", leak, one=True)

    def update(self, x: PyTree) -> jax.Array:
        """Take in x; return the new value."""
        self.state.value = leaky_step(self.value, self._taken(x), self.leak)
        return self.value
