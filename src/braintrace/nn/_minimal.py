"""Recurrent cells with few gates."""

from typing import Any

import brainstate
import jax.numpy as jnp
from jax.nn import sigmoid
from jaxtyping import Array, Float

from ._arguments import ORTHOGONAL, ZERO, Activation, Init, Size
from ._cell import ActivatedCell, Cell


class CFNCell(ActivatedCell):
    """The chaos-free network (Laurent and von Brecht 2016, "A recurrent neural network without
    chaos").

        f = sigmoid(W_f [x_t, h_{t-1}] + b_f)
        i = sigmoid(W_i [x_t, h_{t-1}] + b_i)
        h_t = f * activation(h_{t-1}) + i * activation(W_h x_t + b_h)

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of the gates' weights, (in + out, out), of W_h, (in, out), and of the
            biases.
        state_init: of the state.
        activation: a function, or the name of one in `brainstate.nn`, `jax.nn` or `jax.numpy`.
        name: of the module.
        param_type: class of the parameter states.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.CFNCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = (("Wf", "xh"), ("Wi", "xh"), ("Wh", "x"))

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Any:
        both = jnp.concatenate([x, h], axis=-1)
        f, i = sigmoid(self.Wf(both)), sigmoid(self.Wi(both))
        return (f * self.activation(h) + i * self.activation(self.Wh(x)),)


class MinimalRNNCell(Cell):
    """The minimal recurrent network (Chen 2017, "MinimalRNN").

        z   = phi(x_t)                                        by default W_x x_t + b_x
        u   = sigmoid(W_u [z, h_{t-1}] + b_u)
        h_t = u * h_{t-1} + (1 - u) * z

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W_u, (2 out, out), of W_x, (in, out), and of the biases.
        state_init: of the state.
        phi: a function or module from (..., in) to (..., out) in place of the linear layer; the
            paper has `brainstate.nn.Sequential(brainstate.nn.Linear(...), brainstate.nn.Tanh())`.
        name: of the module.
        param_type: class of the parameter states.

    z acts on the state directly and through the gate; per-parameter rules see both at the step
    where z comes in, and its direct part later.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.MinimalRNNCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Init = ORTHOGONAL,
        b_init: Init = ZERO,
        state_init: Init = ZERO,
        phi: Activation | None = None,
        name: str | None = None,
        *,
        param_type: type = brainstate.ParamState,
    ):
        self._layers = (*(() if phi is not None else (("phi", "x"),)), ("W_u", "hh"))
        super().__init__(in_size, out_size, w_init, b_init, state_init, name, param_type=param_type)
        if phi is not None:
            self.phi = phi

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Any:
        z = self.phi(x)
        u = sigmoid(self.W_u(jnp.concatenate([z, h], axis=-1)))
        return (u * h + (1 - u) * z,)


class MiniGRU(Cell):
    """A GRU without a reset gate and without a squashed candidate.

        z   = sigmoid(W_z [x_t, h_{t-1}] + b_z)
        h_t = (1 - z) * h_{t-1} + z * (W_x x_t + b_x)

    The gate reads the old state, as in the GRU; in the minGRU of Feng et al. (2024), which trains
    in parallel, it does not.

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W_z, (in + out, out), of W_x, (in, out), and of the biases.
        state_init: of the state.
        name: of the module.
        param_type: class of the parameter states.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.MiniGRU(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = (("W_x", "x"), ("W_z", "xh"))

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Any:
        z = sigmoid(self.W_z(jnp.concatenate([x, h], axis=-1)))
        return ((1 - z) * h + z * self.W_x(x),)


class MiniLSTM(Cell):
    """An LSTM with one state, without an output gate and without a squashed candidate.

        f, i = sigmoid(W_f [x_t, h_{t-1}] + b_f), sigmoid(W_i [x_t, h_{t-1}] + b_i)
        h_t  = f * h_{t-1} + i * (W_x x_t + b_x)

    The gates read the old state, as in the LSTM; in the minLSTM of Feng et al. (2024), which trains
    in parallel, they do not.

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W_f and W_i, (in + out, out), of W_x, (in, out), and of the biases.
        state_init: of the state.
        name: of the module.
        param_type: class of the parameter states.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.MiniLSTM(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = (("W_x", "x"), ("W_f", "xh"), ("W_i", "xh"))

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Any:
        both = jnp.concatenate([x, h], axis=-1)
        f, i = sigmoid(self.W_f(both)), sigmoid(self.W_i(both))
        return (f * h + i * self.W_x(x),)
