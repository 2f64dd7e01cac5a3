"""What is linear: the one table that derivatives, traces and activities read."""

from collections.abc import Collection, Sequence

from .._compat import P, is_differentiable, named
from ._program import Atom, Equation

SIGNS = named("neg copy convert_element_type")  # element by element, of one operand
PARTS = named("real imag slice split")  # the result is a part of the operand
# The result holds all that each operand holds.
_WHOLE = SIGNS | named(
    "add add_jaxvals sub conj complex reshape transpose squeeze broadcast_in_dim rev concatenate "
    "pad"
)
# Linear in all their floating-point operands together; what else they read says where elements go.
LINEAR = (
    _WHOLE
    | PARTS
    | named(
        "name reduce_sum cumsum select_n gather dynamic_slice dynamic_update_slice scatter "
        "scatter_add scatter_sub stack unstack tile reduce_window_sum fft sharding_constraint "
        "device_put optimization_barrier"
    )
)
IN_ONE = named("mul dot_general conv_general_dilated")  # linear in each operand alone
_IN_THIS = {P.div_p: 0, P.triangular_solve_p: 1}  # linear in the operand of this number


def is_linear_in(equation: Equation, numbers: set[int], others: Sequence[Atom]) -> bool:
    """Whether an equation is linear in its operands `numbers` together, given the `others`."""
    if equation.primitive in LINEAR:
        return all(equation.inputs[k].differentiable for k in numbers) and not any(
            is_differentiable(v.dtype) for v in others
        )
    if equation.primitive in IN_ONE:
        return len(numbers) == 1
    return numbers == {_IN_THIS.get(equation.primitive)}


def scales(equation: Equation, operand: int) -> bool:
    """Whether an equation multiplies an operand by another, or divides it."""
    return equation.primitive is P.mul_p or (equation.primitive is P.div_p and operand == 0)


def keeps_activity(equation: Equation, operand: int, state: Collection[Atom]) -> bool:
    """Whether an equation adds, moves or scales an operand, by a factor not in `state`."""
    if scales(equation, operand):
        return not any(v in state for k, v in enumerate(equation.inputs) if k != operand)
    return equation.primitive in _WHOLE
