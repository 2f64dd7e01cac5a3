"""What the arguments of the layers have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import brainstate
import brainunit
import jax
import numpy as np

from ..core._errors import UsageError

Size = int | Sequence[int]
# The constructors take a name, which their annotations do not say.
Module: Any = brainstate.nn.Module
RNNCell: Any = brainstate.nn.RNNCell
Activation = Callable[[jax.Array], jax.Array]
Init = Any  # an initializer `(shape) -> array`, or an array

# defaults
ZERO = brainstate.nn.init.ZeroInit()
ORTHOGONAL = brainstate.nn.init.Orthogonal()
XAVIER = brainstate.nn.init.XavierNormal()
KAIMING = brainstate.nn.init.KaimingNormal()
LECUN = brainstate.nn.init.LecunNormal()
FIVE_MS = 5.0 * brainunit.ms


def features(size: Size, name: str) -> int:
    """The number of features of a size: an integer, or a tuple with one."""
    found = (size,) if isinstance(size, (int, np.integer)) else tuple(size)
    if len(found) != 1 or not isinstance(found[0], (int, np.integer)) or found[0] <= 0:
        raise UsageError(
            f"{name} is not a number of features.",
            got=size,
            expected="a positive integer, or a tuple of one",
            do="flatten the input in front of the cell",
        )
    return int(found[0])


def sizes(in_size: Size, out_size: Size) -> tuple[int, int]:
    """The numbers of inputs and of outputs."""
    return features(in_size, "in_size"), features(out_size, "out_size")


def activation_of(activation: str | Activation) -> Activation:
    """The function of a name, such as 'tanh'; a function as it is."""
    if callable(activation):
        return activation
    found = getattr(jax.nn, activation, None) or getattr(jax.numpy, activation, None)
    if found is None:
        raise UsageError(
            "Unknown activation.",
            got=repr(activation),
            expected="a function, or a name in jax.nn, such as 'tanh'",
        )
    return found


class Cell(RNNCell):
    """A recurrent cell with one state `h` of `out_size` neurons."""

    h: Any  # the HiddenState

    def __init__(self, in_size: Size, out_size: Size, state_init: Init, name: str | None):
        super().__init__(name=name)
        self.num_in, self.num_out = sizes(in_size, out_size)
        self.in_size, self.out_size = (self.num_in,), (self.num_out,)
        self._state_init = state_init

    def _linear(self, inputs: int, w_init: Init, b_init: Init) -> brainstate.nn.Linear:
        return brainstate.nn.Linear(inputs, self.num_out, w_init=w_init, b_init=b_init)

    def init_state(self, batch_size: int | None = None, **kwargs: object) -> None:
        """Make the state, (batch_size, out_size), or (out_size,) without a batch."""
        self.h = brainstate.HiddenState(
            brainstate.nn.init.param(self._state_init, self.num_out, batch_size)
        )

    def reset_state(self, batch_size: int | None = None, **kwargs: object) -> None:
        """Set the state to its initial value."""
        self.h.value = brainstate.nn.init.param(self._state_init, self.num_out, batch_size)
