"""A frozen feedback matrix, usable alone."""

from typing import Any

import jax

from ..core._domains import array, positive, whole
from ..core._errors import UsageError
from ._options import seed


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
            whole(name, value)
        words = seed("key", key)
        drawn = jax.random.key(words) if isinstance(words, int) else key
        self.B = positive("init_scale", init_scale) * jax.random.normal(drawn, (n_target, n_layer))

    def project(self, target: jax.Array) -> jax.Array:
        """`target @ B`, with no gradient: (..., n_target) -> (..., n_layer)."""
        found = array("target", target)
        if found.shape[-1:] != self.B.shape[:1]:
            raise UsageError(
                "The target does not fit the matrix.",
                got=f"shape {found.shape}",
                expected=f"shape (..., {self.B.shape[0]})",
            )
        return jax.lax.stop_gradient(found @ self.B)
