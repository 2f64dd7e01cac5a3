"""brainstate's recurrent cells with `in_size` and `out_size`."""

from typing import Any

import brainstate

from ._arguments import (
    ORTHOGONAL,
    XAVIER,
    ZERO,
    Activation,
    Init,
    Module,
    Size,
    check_inits,
    named_activation,
    sizes,
)

# untyped: their annotations leave out what they take
_ValinaRNNCell: Any = brainstate.nn.ValinaRNNCell
_GRUCell: Any = brainstate.nn.GRUCell
_MGUCell: Any = brainstate.nn.MGUCell
_LSTMCell: Any = brainstate.nn.LSTMCell
_URLSTMCell: Any = brainstate.nn.URLSTMCell


class ValinaRNNCell(_ValinaRNNCell):
    """`h_t = activation(W [x_t, h_{t-1}] + b)`: the plain recurrent cell (Elman 1990).

    Args:
        in_size, out_size: numbers of inputs and neurons.
        state_init: of the state.
        w_init, b_init: of W, (in + out, out), and b, (out,).
        activation: a function, or the name of one in `brainstate.nn`.
        name: of the module.

    Under D-RTRL, W sees its effect on later states through h of the same neuron alone; here nothing
    of it lasts (h_{t-1} enters through W only), so the gradient is that of each step.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.ValinaRNNCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        state_init: Init = ZERO,
        w_init: Init = XAVIER,
        b_init: Init = ZERO,
        activation: str | Activation = "relu",
        name: str | None = None,
    ):
        check_inits(state_init=state_init, w_init=w_init, b_init=b_init)
        activation = named_activation(activation)
        super().__init__(*sizes(in_size, out_size), state_init, w_init, b_init, activation, name)


class _Sized(Module):
    """What the constructors of gated units have in common."""

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
        check_inits(w_init=w_init, b_init=b_init, state_init=state_init)
        activation = named_activation(activation)
        super().__init__(*sizes(in_size, out_size), w_init, b_init, state_init, activation, name)


class GRUCell(_Sized, _GRUCell):
    """The gated recurrent unit (Cho et al. 2014), with the reset gate in front of the product.

        r, z = sigmoid(W_rz [x_t, h_{t-1}] + b_rz)
        c    = activation(W_h [x_t, r * h_{t-1}] + b_h)
        h_t  = (1 - z) * h_{t-1} + z * c

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W_rz, (in + out, 2 out), and W_h, (in + out, out), and of their biases.
        state_init: of the state.
        activation: a function, or the name of one in `brainstate.nn`.
        name: of the module.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.GRUCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """


class MGUCell(_Sized, _MGUCell):
    """The minimal gated unit (Zhou et al. 2016): one gate.

        f   = sigmoid(W_f [x_t, h_{t-1}] + b_f)
        c   = activation(W_h [x_t, f * h_{t-1}] + b_h)
        h_t = (1 - f) * h_{t-1} + f * c

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W_f and W_h, (in + out, out) each, and of their biases.
        state_init: of the state.
        activation: a function, or the name of one in `brainstate.nn`.
        name: of the module.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.MGUCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """


class LSTMCell(_LSTMCell):
    """The long short-term memory (Hochreiter and Schmidhuber 1997; Zaremba et al. 2014), with
    states h and c.

        i, g, f, o = W [x_t, h_{t-1}] + b
        c_t = sigmoid(f + 1) * c_{t-1} + sigmoid(i) * activation(g)
        h_t = sigmoid(o) * activation(c_t)

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init, b_init: of W, (in + out, 4 out), and b. The forget gate has 1 added (Jozefowicz et
            al. 2015).
        state_init: of both states.
        activation: a function, or the name of one in `brainstate.nn`.
        name: of the module.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.LSTMCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Init = XAVIER,
        b_init: Init = ZERO,
        state_init: Init = ZERO,
        activation: str | Activation = "tanh",
        name: str | None = None,
    ):
        check_inits(w_init=w_init, b_init=b_init, state_init=state_init)
        activation = named_activation(activation)
        super().__init__(*sizes(in_size, out_size), w_init, b_init, state_init, activation, name)


class URLSTMCell(_URLSTMCell):
    """The LSTM with the uniform, refined gates of Gu et al. (2020), "Improving the gating mechanism
    of recurrent networks".

        f, r, u, o = W [x_t, h_{t-1}] (+ the bias b on f, - b on r)
        f, r = sigmoid(f), sigmoid(r);   g = 2 r f + (1 - 2 r) f^2
        c_t = g * c_{t-1} + (1 - g) * activation(u)
        h_t = sigmoid(o) * activation(c_t)

    Args:
        in_size, out_size: numbers of inputs and neurons.
        w_init: of W, (in + out, 4 out). The bias is spread so that the neurons' time scales are.
        state_init: of both states.
        activation: a function, or the name of one in `brainstate.nn`.
        name: of the module.

    >>> import brainstate
    >>> import braintrace
    >>> cell = braintrace.nn.URLSTMCell(in_size=3, out_size=4)
    >>> cell.init_state(batch_size=2)
    >>> cell(brainstate.random.randn(2, 3)).shape
    (2, 4)
    """

    def __init__(
        self,
        in_size: Size,
        out_size: Size,
        w_init: Init = XAVIER,
        state_init: Init = ZERO,
        activation: str | Activation = "tanh",
        name: str | None = None,
    ):
        check_inits(w_init=w_init, state_init=state_init)
        activation = named_activation(activation)
        super().__init__(*sizes(in_size, out_size), w_init, state_init, activation, name)
