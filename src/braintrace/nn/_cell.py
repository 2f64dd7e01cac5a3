"""What the recurrent cells have in common."""

from typing import Any

import brainstate
from jaxtyping import Array, Float

from ._arguments import (
    ORTHOGONAL,
    ZERO,
    Activation,
    Init,
    Size,
    Stateful,
    activation_of,
    check_inits,
    check_kind,
    sizes,
)

_RNNCell: Any = brainstate.nn.RNNCell


class Cell(Stateful, _RNNCell):
    """A recurrent cell whose output is its state `h`, and its linear layers: what each reads, of
    the input 'x' and the state 'h'.
    """

    _layers: Any  # pairs of names
    _moved: Any  # method: of an input and the states, the states after them

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Init = ORTHOGONAL,
        b_init: Init = ZERO,
        state_init: Init = ZERO,
        name: str | None = None,
        *,
        param_type: type = brainstate.ParamState,
    ):
        super().__init__(name=name)
        self.num_in, self.num_out = sizes(in_size, out_size)
        check_inits(w_init=w_init, b_init=b_init, state_init=state_init)
        check_kind(param_type)
        self.in_size, self.out_size = (self.num_in,), (self.num_out,)
        self._state_init, of = state_init, {"x": self.num_in, "h": self.num_out}
        given = {"w_init": w_init, "b_init": b_init, "param_type": param_type}
        for layer, reads in self._layers:
            inputs = sum(of[read] for read in reads)
            setattr(self, layer, brainstate.nn.Linear(inputs, self.num_out, **given))

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B N"]:
        """One step: the new state."""
        states = [getattr(self, name) for name in self._states]
        moved = self._moved(x, *(state.value for state in states))
        for state, value in zip(states, moved, strict=True):
            state.value = value
        return self.h.value


class ActivatedCell(Cell):
    """A recurrent cell with an activation."""

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Init = ORTHOGONAL,
        b_init: Init = ZERO,
        state_init: Init = ZERO,
        activation: str | Activation = "tanh",
        name: str | None = None,
        *,
        param_type: type = brainstate.ParamState,
    ):
        super().__init__(in_size, out_size, w_init, b_init, state_init, name, param_type=param_type)
        self.activation = activation_of(activation)
