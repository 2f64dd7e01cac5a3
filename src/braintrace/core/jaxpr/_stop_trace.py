"""`stop_trace`: an edge that no eligibility trace passes, marked in the user's own program."""

from typing import TypeVar

import jax
from jax.ad_checkpoint import checkpoint_name

from .._compat import P, is_differentiable
from .._domains import leaf
from ._program import Atom, Equation, Var

_MARK = "braintrace.stop_trace"
_BENT = ", whose own derivative is not linear"

T = TypeVar("T")


def stop_trace(x: T) -> T:
    r"""The identity, which no eligibility trace passes: a path that a model leaves out of its
    online gradient on purpose.

    Let :math:`h_t = f(h_{t-1}, u_t)` be the hidden state and let u = stop_trace(v) stand on a way
    from v to h_t. Then, in the gradient of a learner,

    * whatever came into being at step t reaches h_t, and the loss of step t, through u in full:
      parameters, inputs and other activity of the same step;
    * the state of step t-1, and with it every trace, does not: the derivative of u with respect to
      h_{t-1} is zero.

    So a parameter that reaches h_t through u only has an instantaneous gradient, and one whose
    effect would travel on through u keeps its other paths. It is how D-RTRL treats a product with
    recurrent weights, here at an edge of the user's choice (a reset, a slow adaptation, a skip
    connection), and it holds for every algorithm. `report` lists the edge among the dropped paths,
    and the parameters that it affects are approximate or instantaneous. Where u reaches outputs of
    its step only, nothing changes.

    Outside of a learner (`jax.jit`, `jax.grad`, `jax.vmap`, BPTT, `check_gradients`' reference) it
    is the identity with the ordinary derivative; inside a learner BPTT through a window
    (`full=True`, 'multi-step') passes it as well.

    Args:
        x: an array, or a tree of arrays; leaves that are not differentiable are returned as they
            are.

    Returns:
        x.

    Example:
        >>> import braintrace, jax.numpy as jnp
        >>> def cell(params, v, x):
        ...     z = jnp.tanh(v)
        ...     v = 0.9 * v + x @ params["w"] - braintrace.stop_trace(z)
        ...     return v, v
        >>> v, x = jnp.zeros((2, 4)), jnp.ones((2, 3))
        >>> learner = braintrace.compile(cell, "d_rtrl", x, params={"w": jnp.ones((3, 4))}, carry=v)
        >>> learner.graph.parameters[0].dropped[0].operation
        'braintrace.stop_trace'
    """
    for path, value in jax.tree_util.tree_leaves_with_path(x):
        leaf(f"argument of stop_trace{jax.tree_util.keystr(path)}", value)
    return jax.tree.map(_marked, x)


def _marked(leaf: jax.Array) -> jax.Array:
    return checkpoint_name(leaf, _MARK) if is_differentiable(jax.numpy.result_type(leaf)) else leaf


def is_stop_trace(equation: Equation) -> bool:
    """Whether an equation is a mark of `stop_trace`, or one that staging made."""
    return _mark_of(equation) == _MARK or is_bent(equation)


def is_bent(equation: Equation) -> bool:
    """Whether an equation marks the way into a call whose own derivative is not linear."""
    return _mark_of(equation).endswith(_BENT)


def _mark_of(equation: Equation) -> str:
    return equation.params.get("name", "") if equation.primitive is P.name_p else ""


def mark_bent(operand: Atom, call: Equation) -> Equation:
    """A mark on the way into a call whose own derivative is not linear in its cotangent.

    Such a derivative (a clipped one, say) needs the whole cotangent at once. Traces pull back their
    parts of it one by one, ahead of the loss, so no trace may pass.
    """
    name = {"name": call.name + _BENT}
    return Equation(P.name_p, [operand], [Var(operand.shape, operand.dtype)], name, call.source)
