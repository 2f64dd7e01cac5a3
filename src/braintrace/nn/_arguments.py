"""What the arguments of the layers have in common."""

from collections.abc import Callable, Sequence
from typing import Any

import brainstate
import brainunit
import jax

from ..core._domains import array, whole
from ..core._errors import UsageError

Size = int | Sequence[int]
# The constructors take a name, which their annotations do not say.
Module: Any = brainstate.nn.Module
Activation = Callable[[jax.Array], jax.Array]
Init = Any  # an initializer `(shape) -> array`, or an array

# defaults
ZERO = brainstate.nn.init.ZeroInit()
ORTHOGONAL = brainstate.nn.init.Orthogonal()
XAVIER = brainstate.nn.init.XavierNormal(distribution="normal")
KAIMING = brainstate.nn.init.KaimingNormal(distribution="normal")
LECUN = brainstate.nn.init.LecunNormal()
FIVE_MS = 5.0 * brainunit.ms


def features(size: Size, name: str) -> int:
    """The number of features of a size: an integer, or a tuple with one."""
    found = size[0] if isinstance(size, tuple | list) and len(size) == 1 else size
    try:
        return whole(name, found)
    except UsageError:
        raise UsageError(
            f"{name} is not a number of features.",
            got=repr(size),
            expected="a positive integer, or a tuple of one",
            do="flatten the input in front of the cell",
        ) from None


def sizes(in_size: Size, out_size: Size) -> tuple[int, int]:
    """The numbers of inputs and of outputs."""
    return features(in_size, "in_size"), features(out_size, "out_size")


def activation_of(activation: str | Activation) -> Activation:
    """The function of a name, such as 'tanh'; a function as it is."""
    if not isinstance(activation, str) and callable(activation):
        return activation
    rooms = brainstate.nn, jax.nn, jax.numpy
    known: list[Any] = [getattr(m, activation, None) for m in rooms if isinstance(activation, str)]
    functions = [f for f in known if callable(f) and not isinstance(f, type)]
    if functions:
        found: Any = functions[0]
        return found
    raise UsageError(
        "Unknown activation.",
        got=repr(activation),
        expected="a function, or the name of one in brainstate.nn, jax.nn or jax.numpy: 'tanh'",
    )


def check_inits(**inits: Init | None) -> None:
    """Each is an initializer `(shape) -> array`, an array, or None."""
    for name, init in inits.items():
        if init is not None and not callable(init) and getattr(init, "unit", None) is None:
            array(name, init)


def check_kind(param_type: object) -> None:
    """It is a class of states."""
    if not (isinstance(param_type, type) and issubclass(param_type, brainstate.State)):
        expected = "a class of states, such as brainstate.ParamState"
        raise UsageError("Invalid param_type.", got=repr(param_type), expected=expected)


class Stateful(Module):
    """A layer whose states are its attributes `_states`, all alike."""

    _states: tuple[str, ...] = ("h",)
    _state_init: Init

    def _initial(self, batch_size: int | None) -> Any:
        """The initial value of a state."""
        return brainstate.nn.init.param(self._state_init, self.out_size, batch_size)

    def init_state(self, batch_size: int | None = None, **kwargs: object) -> None:
        """Make the states, (batch_size, *out_size), or out_size without a batch."""
        for name in self._states:
            setattr(self, name, brainstate.HiddenState(self._initial(batch_size)))

    def reset_state(self, batch_size: int | None = None, **kwargs: object) -> None:
        """Set the states to their initial values."""
        for name in self._states:
            getattr(self, name).value = self._initial(batch_size)
