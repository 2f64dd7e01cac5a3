"""`GradExpon`: gradients summed with a leak."""

import numbers

import brainunit
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..core._domains import leaf
from ..core._errors import UsageError
from ..core._precision import widened
from ._precision import brainstate


class GradExpon(brainstate.nn.Module):
    r"""A leaky sum of gradients: :math:`g \leftarrow \lambda g + \nabla`, from 0.

    Args:
        grad_shape: a tree of arrays (or of anything with shape and dtype) like the gradients.
        tau_or_decay: the decay :math:`\lambda` in (0, 1), or a time constant :math:`\tau` with a
            unit of time, for
            :math:`\lambda = e^{-dt/\tau}` with `dt` of `brainstate.environ`.

    Attributes:
        gradients: the state that holds the sum, in at least float32.
        decay: :math:`\lambda`.

    Raises:
        UsageError: for a decay or time constant out of range.

    >>> import braintrace, jax.numpy as jnp
    >>> accumulated = braintrace.GradExpon(jnp.zeros(3), 0.5)
    >>> _ = accumulated.update(jnp.ones(3))
    >>> accumulated.update(jnp.ones(3)).tolist()
    [1.5, 1.5, 1.5]
    """

    __module__ = "braintrace"

    def __init__(self, grad_shape: PyTree, tau_or_decay: ArrayLike):
        super().__init__()
        self.decay = _gradient_decay(tau_or_decay)
        for path, value in jax.tree_util.tree_leaves_with_path(grad_shape):
            leaf(f"grad_shape{jax.tree_util.keystr(path)}", value, values=False)
        self.gradients = brainstate.ShortTermState(
            widened(jax.tree.map(jnp.zeros_like, grad_shape))
        )

    def update(self, gradients: PyTree) -> PyTree:
        """Take in gradients; return the new sum."""
        structure = jax.tree.structure(self.gradients.value)
        if jax.tree.structure(gradients) != structure:
            raise UsageError(
                "The gradients have another structure.",
                got=jax.tree.structure(gradients),
                expected=structure,
                do="make the GradExpon with a tree like the gradients",
            )
        for held, (path, value) in zip(
            jax.tree.leaves(self.gradients.value),
            jax.tree_util.tree_leaves_with_path(gradients),
            strict=True,
        ):
            name = f"gradient{jax.tree_util.keystr(path)}"
            if (shape := leaf(name, value).shape) != held.shape:
                raise UsageError(f"Invalid {name}.", got=shape, expected=f"shape {held.shape}")
        add = lambda g, new: self.decay * g + new
        self.gradients.value = jax.tree.map(add, self.gradients.value, gradients)
        return self.gradients.value

    def reset_state(self) -> None:
        """Set the sum to zero."""
        self.gradients.value = jax.tree.map(jnp.zeros_like, self.gradients.value)


def _gradient_decay(value: PyTree) -> float:
    number = -1.0
    if isinstance(value, brainunit.Quantity) and value.unit.has_same_dim(brainunit.ms):
        ratio = float(brainunit.Quantity(brainstate.environ.get_dt() / value).to_decimal())
        number = float(np.exp(-ratio)) if ratio > 0 else number
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
    if not 0 < number < 1:
        raise UsageError(
            "Invalid tau_or_decay.",
            got=str(value),
            expected="a decay in (0, 1), or a time constant above 0 * u.ms",
            do="pass 0.9, say, or 20 * u.ms with dt in brainstate.environ",
        )
    return number
