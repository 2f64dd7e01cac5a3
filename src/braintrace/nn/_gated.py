"""Recurrent cells: the plain one, gated units and long short-term memories."""

from typing import Any

import brainstate
import jax.numpy as jnp
import numpy as np
from jax.nn import sigmoid
from jaxtyping import Array, Float

from ._arguments import XAVIER, ZERO, Activation, Init, Size
from ._cell import ActivatedCell


def _both(x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Float[Array, "*B I+N"]:
    return jnp.concatenate([x, h], axis=-1)


class ValinaRNNCell(ActivatedCell):
    """`h_t = activation(W [x_t, h_{t-1}] + b)`: the plain recurrent cell (Elman 1990).

    Args:
        in_size, out_size: numbers of inputs and neurons.
        state_init: of the state.
        w_init, b_init: of W, (in + out, out), and b, (out,).
        activation: a function, or the name of one in `brainstate.nn`, `jax.nn` or `jax.numpy`.
        name: of the module.
        param_type: class of the parameter states.

    Under D-RTRL, W sees its effect on later states through h of the same neuron alone; here nothing
    of it lasts (h_{t-1} enters through W only), so the gradient is that of each step.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.ValinaRNNCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = (("W", "xh"),)

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        state_init: Init = ZERO,
        w_init: Init = XAVIER,
        b_init: Init = ZERO,
        activation: str | Activation = "relu",
        name: str | None = None,
        *,
        param_type: type = brainstate.ParamState,
    ):
        initial = w_init, b_init, state_init
        super().__init__(in_size, out_size, *initial, activation, name, param_type=param_type)

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Any:
        return (self.activation(self.W(_both(x, h))),)


class GRUCell(ActivatedCell):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate in front of the product.

        z, r = sigmoid(W_z [x_t, h_{t-1}] + b_z), sigmoid(W_r [x_t, h_{t-1}] + b_r)
        c    = activation(W_h [x_t, r * h_{t-1}] + b_h)
        h_t  = (1 - z) * h_{t-1} + z * c

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of the weights of `Wz`, `Wr` and `Wh`, (in + out, out) each, and of their
            biases.
        state_init: of the state.
        activation: a function, or the name of one in `brainstate.nn`, `jax.nn` or `jax.numpy`.
        name: of the module.
        param_type: class of the parameter states.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.GRUCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = (("Wz", "xh"), ("Wr", "xh"), ("Wh", "xh"))

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Any:
        both = _both(x, h)
        z, r = sigmoid(self.Wz(both)), sigmoid(self.Wr(both))
        return ((1 - z) * h + z * self.activation(self.Wh(_both(x, r * h))),)


class MGUCell(ActivatedCell):
    """The minimal gated unit (Zhou et al. 2016): one gate.

        f   = sigmoid(W_f [x_t, h_{t-1}] + b_f)
        c   = activation(W_h [x_t, f * h_{t-1}] + b_h)
        h_t = (1 - f) * h_{t-1} + f * c

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W_f and W_h, (in + out, out) each, and of their biases.
        state_init: of the state.
        activation: a function, or the name of one in `brainstate.nn`, `jax.nn` or `jax.numpy`.
        name: of the module.
        param_type: class of the parameter states.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.MGUCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = (("Wf", "xh"), ("Wh", "xh"))

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"]) -> Any:
        f = sigmoid(self.Wf(_both(x, h)))
        return ((1 - f) * h + f * self.activation(self.Wh(_both(x, f * h))),)


class LSTMCell(ActivatedCell):
    """The long short-term memory (Hochreiter and Schmidhuber 1997; Zaremba et al. 2014), with
    states h and c.

        i, g, f, o = W_k [x_t, h_{t-1}] + b_k for each k of i, g, f, o
        c_t = sigmoid(f + 1) * c_{t-1} + sigmoid(i) * activation(g)
        h_t = sigmoid(o) * activation(c_t)

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of the weights of `Wi`, `Wg`, `Wf` and `Wo`, (in + out, out) each, and of
            their biases. The forget gate has 1 added (Jozefowicz et al. 2015).
        state_init: of both states.
        activation: a function, or the name of one in `brainstate.nn`, `jax.nn` or `jax.numpy`.
        name: of the module.
        param_type: class of the parameter states.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.LSTMCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = tuple((name, "xh") for name in ("Wi", "Wg", "Wf", "Wo"))
    _states = ("h", "c")

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Init = XAVIER,
        b_init: Init = ZERO,
        state_init: Init = ZERO,
        activation: str | Activation = "tanh",
        name: str | None = None,
        *,
        param_type: type = brainstate.ParamState,
    ):
        initial = w_init, b_init, state_init
        super().__init__(in_size, out_size, *initial, activation, name, param_type=param_type)

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"], c: Any) -> Any:
        both = _both(x, h)
        i, g, f, o = self.Wi(both), self.Wg(both), self.Wf(both), self.Wo(both)
        c = sigmoid(f + 1.0) * c + sigmoid(i) * self.activation(g)
        return sigmoid(o) * self.activation(c), c


class URLSTMCell(ActivatedCell):
    """The LSTM with the uniform, refined gates of Gu et al. (2020), "Improving the gating mechanism
    of recurrent networks".

        u, f, r, o = W_k [x_t, h_{t-1}] for each k of u, f, r, o
        f, r = sigmoid(f + bias), sigmoid(r - bias);   g = 2 r f + (1 - 2 r) f^2
        c_t = g * c_{t-1} + (1 - g) * activation(u)
        h_t = sigmoid(o) * activation(c_t)

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init: of the weights of `Wu`, `Wf`, `Wr` and `Wo`, (in + out, out) each. The bias is drawn
            so that the neurons' time scales are spread.
        state_init: of both states.
        activation: a function, or the name of one in `brainstate.nn`, `jax.nn` or `jax.numpy`.
        name: of the module.
        param_type: class of the parameter states.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.URLSTMCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    _layers = tuple((name, "xh") for name in ("Wu", "Wf", "Wr", "Wo"))
    _states = ("h", "c")

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Init = XAVIER,
        state_init: Init = ZERO,
        activation: str | Activation = "tanh",
        name: str | None = None,
        *,
        param_type: type = brainstate.ParamState,
    ):
        initial = w_init, None, state_init
        super().__init__(in_size, out_size, *initial, activation, name, param_type=param_type)
        # gates that are uniform between 1/n and 1 - 1/n
        n = max(self.num_out, 2)
        gate = np.asarray(brainstate.random.uniform(1 / n, 1 - 1 / n, (self.num_out,)), np.float64)
        dtype = brainstate.environ.dftype()
        self.bias = param_type(jnp.asarray(np.log(gate) - np.log1p(-gate), dtype))

    def _moved(self, x: Float[Array, "*B I"], h: Float[Array, "*B N"], c: Any) -> Any:
        both, bias = _both(x, h), self.bias.value
        u, f, r, o = self.Wu(both), self.Wf(both), self.Wr(both), self.Wo(both)
        f, r = sigmoid(f + bias), sigmoid(r - bias)
        g = 2 * r * f + (1 - 2 * r) * f**2
        c = g * c + (1 - g) * self.activation(u)
        return sigmoid(o) * self.activation(c), c
