"""Recurrent cells with few gates."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._arguments import ORTHOGONAL, ZERO, Activation, Cell, Init, Size, activation_of


class CFNCell(Cell):
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
        activation: a function, or the name of one in `jax.nn`.
        name: of the module.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.CFNCell(in_size=3, out_size=4)
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
        activation: str | Activation = "tanh",
        name: str | None = None,
    ):
        super().__init__(in_size, out_size, state_init, name)
        self.activation = activation_of(activation)
        both = self.num_in + self.num_out
        self.Wf, self.Wi = self._linear(both, w_init, b_init), self._linear(both, w_init, b_init)
        self.Wh = self._linear(self.num_in, w_init, b_init)

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B N"]:
        """One step: the new state."""
        h = self.h.value
        both = jnp.concatenate([x, h], axis=-1)
        f, i = jax.nn.sigmoid(self.Wf(both)), jax.nn.sigmoid(self.Wi(both))
        self.h.value = f * self.activation(h) + i * self.activation(self.Wh(x))
        return self.h.value


class MinimalRNNCell(Cell):
    """The minimal recurrent network (Chen 2017, "MinimalRNN").

        z   = phi(x_t)                                        by default tanh(W_x x_t + b_x)
        u   = sigmoid(W_u [z, h_{t-1}] + b_u)
        h_t = u * h_{t-1} + (1 - u) * z

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W_u, (2 out, out), of W_x, (in, out), and of the biases.
        state_init: of the state.
        phi: a function or module from (..., in) to (..., out) in place of the default.
        name: of the module.

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
    ):
        super().__init__(in_size, out_size, state_init, name)
        self.phi = phi
        if phi is None:
            self.W_x = self._linear(self.num_in, w_init, b_init)
        self.W_u = self._linear(2 * self.num_out, w_init, b_init)

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B N"]:
        """One step: the new state."""
        h = self.h.value
        z = jnp.tanh(self.W_x(x)) if self.phi is None else self.phi(x)
        u = jax.nn.sigmoid(self.W_u(jnp.concatenate([z, h], axis=-1)))
        self.h.value = u * h + (1 - u) * z
        return self.h.value


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

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.MiniGRU(in_size=3, out_size=4)
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
        name: str | None = None,
    ):
        super().__init__(in_size, out_size, state_init, name)
        self.W_x = self._linear(self.num_in, w_init, b_init)
        self.W_z = self._linear(self.num_in + self.num_out, w_init, b_init)

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B N"]:
        """One step: the new state."""
        h = self.h.value
        z = jax.nn.sigmoid(self.W_z(jnp.concatenate([x, h], axis=-1)))
        self.h.value = (1 - z) * h + z * self.W_x(x)
        return self.h.value


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

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.MiniLSTM(in_size=3, out_size=4)
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
        name: str | None = None,
    ):
        super().__init__(in_size, out_size, state_init, name)
        self.W_x = self._linear(self.num_in, w_init, b_init)
        both = self.num_in + self.num_out
        self.W_f, self.W_i = self._linear(both, w_init, b_init), self._linear(both, w_init, b_init)

    def update(self, x: Float[Array, "*B I"]) -> Float[Array, "*B N"]:
        """One step: the new state."""
        h = self.h.value
        both = jnp.concatenate([x, h], axis=-1)
        f, i = jax.nn.sigmoid(self.W_f(both)), jax.nn.sigmoid(self.W_i(both))
        self.h.value = f * h + i * self.W_x(x)
        return self.h.value
