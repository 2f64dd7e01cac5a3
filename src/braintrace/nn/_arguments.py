"""What the arguments of the layers have in common."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

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
XAVIER = brainstate.nn.init.XavierNormal()
KAIMING = brainstate.nn.init.KaimingNormal()
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
    rooms = jax.nn, jax.numpy
    known: list[Any] = [getattr(m, activation, None) for m in rooms if isinstance(activation, str)]
    found: Any = next((f for f in known if callable(f)), None)
    return _unknown(activation, "jax.nn") if found is None else found


def named_activation(activation: str | Activation) -> str | Activation:
    """A function, or the name of one in `brainstate.nn`."""
    if isinstance(activation, str) and not hasattr(brainstate.nn, activation):
        _unknown(activation, "brainstate.nn")
    if not isinstance(activation, str) and not callable(activation):
        _unknown(activation, "brainstate.nn")
    return activation


def _unknown(activation: object, room: str) -> NoReturn:
    raise UsageError(
        "Unknown activation.",
        got=repr(activation),
        expected=f"a function, or a name in {room}, such as 'tanh'",
    )


def check_inits(**inits: Init | None) -> None:
    """Each is an initializer `(shape) -> array`, an array, or None."""
    for name, init in inits.items():
        if init is not None and not callable(init) and getattr(init, "unit", None) is None:
            array(name, init)


class OneState(Module):
    """A layer with one state, which is its attribute `_state`."""

    _state = "h"
    _state_init: Init

    def _initial(self, batch_size: int | None) -> Any:
        """The state's initial value."""
        return brainstate.nn.init.param(self._state_init, self.out_size, batch_size)

    def init_state(self, batch_size: int | None = None, **kwargs: object) -> None:
        """Make the state, (batch_size, *out_size), or out_size without a batch."""
        setattr(self, self._state, brainstate.HiddenState(self._initial(batch_size)))

    def reset_state(self, batch_size: int | None = None, **kwargs: object) -> None:
        """Set the state to its initial value."""
        getattr(self, self._state).value = self._initial(batch_size)
