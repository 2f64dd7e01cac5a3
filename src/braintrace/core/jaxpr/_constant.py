"""Equations whose results are known when a program is staged."""

import jax
import numpy as np

from .._compat import P, bind, is_differentiable, is_key, is_traced, sub_jaxprs
from ._program import Const, Equation

_FOLD_LIMIT = 1 << 22  # elements; larger integer constants are left to run time


def folded(equation: Equation) -> list[Const] | None:
    """The results of index arithmetic on constants, so that constant indices are seen as constant,
    and of the conversion of a constant number.
    """
    values = [v.value for v in equation.inputs if isinstance(v, Const)]
    if len(values) < len(equation.inputs) or sub_jaxprs(equation.params):
        return None
    if any(map(is_traced, values)) or any(
        is_key(v.dtype) for v in (*equation.inputs, *equation.outputs)
    ):
        return None
    if equation.primitive is P.convert_element_type_p and np.shape(values[0]) == ():
        return [Const(np.asarray(values[0]).astype(equation.outputs[0].dtype))]
    if any(v.size > _FOLD_LIMIT for v in equation.outputs) or any(
        is_differentiable(v.dtype) for v in (*equation.inputs, *equation.outputs)
    ):
        return None
    with jax.ensure_compile_time_eval():
        return [Const(np.asarray(r)) for r in bind(equation.primitive, values, equation.params)]
