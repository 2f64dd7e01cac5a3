"""Trace helpers: a frozen feedback matrix, an output filter, a presynaptic trace. Usable alone."""

from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ..core._errors import UsageError, problem
from ..core.traces import kappa_step, leaky_step
from . import _options


class FixedRandomFeedback:
    """A frozen random feedback matrix, drawn as `init_scale * N(0, 1)`.

    Args:
        n_target: size of the target or error, the rows of B.
        n_layer: size of the layer, the columns of B.
        key: PRNG key or whole number.
        init_scale: standard deviation of the entries.

    Attributes:
        B: the matrix, (n_target, n_layer).

    >>> import braintrace, jax.numpy as jnp
    >>> feedback = braintrace.FixedRandomFeedback(n_target=2, n_layer=5, key=0)
    >>> feedback.project(jnp.ones((4, 2))).shape
    (4, 5)
    """

    __module__ = "braintrace"

    def __init__(self, n_target: int, n_layer: int, key: Any, init_scale: float = 0.1):
        for name, value in (("n_target", n_target), ("n_layer", n_layer)):
            if not isinstance(value, int) or value < 1:
                raise UsageError(
                    problem(
                        f"Wrong {name}.", got=repr(value), expected="a whole number of at least 1"
                    )
                )
        drawn = jax.random.key(key) if isinstance(key, int) else key
        self.B = _options.positive("init_scale", init_scale) * jax.random.normal(
            drawn, (n_target, n_layer)
        )

    def project(self, target: jax.Array) -> jax.Array:
        """`target @ B`, with no gradient: (..., n_target) -> (..., n_layer)."""
        return jax.lax.stop_gradient(jnp.asarray(target) @ self.B)


class _Filter(brainstate.nn.Module):
    """A value that is filtered over time, as a brainstate state."""

    def __init__(self, init_value: Any):
        super().__init__()
        self._initial = jnp.asarray(init_value)
        self.state = brainstate.ShortTermState(self._initial)

    @property
    def value(self) -> jax.Array:
        """The present value."""
        return self.state.value

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

    def __init__(self, init_value: Any, kappa: float):
        super().__init__(init_value)
        self.kappa = _options.decay("kappa", kappa)

    def update(self, x: Any) -> jax.Array:
        """Take in x; return the new value."""
        self.state.value = kappa_step(self.value, x, self.kappa)
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

    def __init__(self, init_value: Any, leak: float):
        super().__init__(init_value)
        self.leak = _options.decay("leak", leak, one=True)

    def update(self, x: Any) -> jax.Array:
        """Take in x; return the new value."""
        self.state.value = leaky_step(self.value, x, self.leak)
        return self.value
