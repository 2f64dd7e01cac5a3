"""Names of release 0.1 of the PyPI package braintrace: parameters that hold their operation. Each
use of a name warns.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..core._domains import array, flag
from ..core._errors import UsageError
from ..core.jaxpr import stop_trace
from ..operators import conv, element_wise, lora_matmul, matmul, sparse_matmul
from ..operators._units import fitted
from ._precision import brainstate

#: Of data and a weight, or of a weight alone.
Operation = Callable[..., PyTree]


class ETraceOp:
    """An operation of data and a weight: `op(x, w)`. A subclass gives `xw_to_y(x, w)`, in ordinary
    JAX.

    Args:
        is_diagonal, name: of no effect.

    >>> import warnings, braintrace
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     class Scale(braintrace.ETraceOp):
    ...         def xw_to_y(self, inputs, weights):
    ...             return inputs * weights
    >>> Scale()(2.0, 3.0)
    6.0
    """

    is_diagonal: bool = False
    name: str | None = None

    def __init__(self, is_diagonal: bool = False, name: str | None = None):
        self.is_diagonal, self.name = is_diagonal, name

    def xw_to_y(self, inputs: PyTree, weights: PyTree) -> PyTree:
        """The result for data and a weight."""
        raise UsageError(
            "The operation is not defined.",
            got=f"{type(self).__name__} without xw_to_y",
            expected="a subclass of ETraceOp with xw_to_y(inputs, weights)",
        )

    def __call__(self, inputs: PyTree, weights: PyTree) -> PyTree:
        return self.xw_to_y(inputs, weights)


@dataclasses.dataclass(eq=False)
class MatMulOp(ETraceOp):
    """`x @ f(w)`, masked, plus a bias: `braintrace.matmul`.

    The weight is an array, or a dict of 'weight' and perhaps 'bias'.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     op = braintrace.MatMulOp(weight_fn=jnp.abs)
    >>> op(jnp.ones((1, 2)), {"weight": -jnp.ones((2, 3)), "bias": jnp.ones(3)}).tolist()
    [[3.0, 3.0, 3.0]]
    """

    weight_mask: ArrayLike | None = None
    weight_fn: Operation | None = None
    apply_weight_fn_before_mask: bool = False

    def xw_to_y(self, inputs: PyTree, weights: PyTree) -> PyTree:
        weight, bias = _with_bias(weights)
        function = None if self.weight_fn is None else _operation(self.weight_fn)
        flag("apply_weight_fn_before_mask", self.apply_weight_fn_before_mask)
        if function is not None and self.apply_weight_fn_before_mask:
            weight, function = function(weight), None
        return matmul(inputs, _masked(weight, self.weight_mask), bias, weight_fn=function)


@dataclasses.dataclass(eq=False)
class ConvOp(ETraceOp):
    """A convolution: `braintrace.conv`; the kernel in 'weight' of a dict, perhaps with a 'bias'.
    `xinfo` is the input's shape.

    >>> import warnings, braintrace, jax, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     op = braintrace.ConvOp(
    ...         jax.ShapeDtypeStruct((1, 5, 2), float),
    ...         (1,),
    ...         "SAME",
    ...         dimension_numbers=("NWC", "WIO", "NWC"),
    ...     )
    >>> op(jnp.ones((1, 5, 2)), {"weight": jnp.ones((3, 2, 4))}).shape
    (1, 5, 4)
    """

    xinfo: jax.ShapeDtypeStruct
    window_strides: Sequence[int]
    padding: str | Sequence[tuple[int, int]]
    lhs_dilation: Sequence[int] | None = None
    rhs_dilation: Sequence[int] | None = None
    feature_group_count: int = 1
    batch_group_count: int = 1
    dimension_numbers: Any = None
    weight_mask: ArrayLike | None = None
    weight_fn: Operation | None = None

    def xw_to_y(self, inputs: PyTree, weights: PyTree) -> PyTree:
        kernel, bias = _with_bias(weights)
        single = jnp.ndim(inputs) < jnp.ndim(kernel)
        kernel = _masked(kernel, self.weight_mask)
        named = dataclasses.fields(self)[2:8]  # from the padding to the dimension numbers
        options: dict[str, Any] = {f.name: getattr(self, f.name) for f in named}
        options |= {"strides": self.window_strides, "kernel_fn": self.weight_fn}
        out = conv(inputs[None] if single else inputs, kernel, bias, **options)
        return out[0] if single else out


@dataclasses.dataclass(eq=False)
class SpMatMulOp(ETraceOp):
    """`x @ M(f(w))` with a sparse matrix of stored entries w: `braintrace.sparse_matmul`.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> from jax.experimental.sparse import BCOO
    >>> matrix = BCOO.fromdense(jnp.eye(3))
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     op = braintrace.SpMatMulOp(matrix)
    >>> op(jnp.ones((1, 3)), {"weight": 2 * matrix.data}).tolist()
    [[2.0, 2.0, 2.0]]
    """

    sparse_mat: Any
    weight_fn: Operation | None = None

    def xw_to_y(self, inputs: PyTree, weights: PyTree) -> PyTree:
        weight, bias = _with_bias(weights)
        given = {"sparse_mat": self.sparse_mat, "weight_fn": self.weight_fn}
        return sparse_matmul(inputs, weight, bias=bias, **given)


@dataclasses.dataclass(eq=False)
class LoraOp(ETraceOp):
    """`alpha x @ B @ A` plus a bias: `braintrace.lora_matmul`; the weight is a dict of 'B', 'A' and
    perhaps 'bias'.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     op = braintrace.LoraOp(alpha=0.5)
    >>> op(jnp.ones((1, 3)), {"B": jnp.ones((3, 1)), "A": jnp.ones((1, 2))}).tolist()
    [[1.5, 1.5]]
    """

    alpha: float | None = None

    def xw_to_y(self, inputs: PyTree, weights: PyTree) -> PyTree:
        _check_names(weights, "B", "A")
        given = {"alpha": 1.0 if self.alpha is None else self.alpha, "bias": weights.get("bias")}
        return lora_matmul(inputs, weights["B"], weights["A"], **given)


@dataclasses.dataclass(eq=False)
class ElemWiseOp(ETraceOp):
    """`fn(w)`: `braintrace.element_wise`. A weight of several entries, a dict say, is handed to
    `fn` whole. `op(w)` is the same as `op(None, w)`.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     op = braintrace.ElemWiseOp(jnp.square)
    >>> op(None, jnp.array([1.0, 3.0])).tolist()
    [1.0, 9.0]
    """

    is_diagonal = True
    fn: Operation | None = None

    def xw_to_y(self, inputs: PyTree, weights: PyTree) -> PyTree:
        if isinstance(weights, (dict, list, tuple)):
            return weights if self.fn is None else self.fn(weights)
        return element_wise(weights, weight_fn=self.fn)

    def __call__(self, *operands: PyTree) -> PyTree:
        """Of the weight alone, or of data, which are not read, and the weight."""
        if len(operands) not in (1, 2):
            raise UsageError(
                "Invalid number of operands.", got=len(operands), expected="op(w), or op(x, w)"
            )
        return self.xw_to_y(None, operands[-1])


class ETraceParam(brainstate.ParamState):
    """A `ParamState` with an operation: `execute(x)`. Any `ParamState` is traced: this one is no
    other.

    Args:
        weight: the value, a tree of arrays.
        op: an `ETraceOp`; None, as layers give it with `param_type=ETraceParam`, for a `ParamState`
            that is read by its value alone.
        grad: of no effect.
        name: the state's name.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     weight = braintrace.ETraceParam({"weight": jnp.ones((2, 3))}, braintrace.MatMulOp())
    >>> weight.execute(jnp.ones((1, 2))).tolist()
    [[2.0, 2.0, 2.0]]
    """

    def __init__(
        self,
        weight: PyTree,
        op: Operation | None = None,
        grad: object = None,
        name: str | None = None,
    ):
        super().__init__(weight, name=name)
        self.op = ETraceOp() if op is None else _operation(op)

    def execute(self, x: PyTree) -> PyTree:
        """The operation of `x` and the value."""
        return self.op(x, self.value)


class ElemWiseParam(ETraceParam):
    """A `ParamState` with a function of its own elements: `execute()`.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     leak = braintrace.ElemWiseParam(jnp.array([-1.0, 2.0]), jnp.abs)
    >>> leak.execute().tolist()
    [1.0, 2.0]
    """

    def __init__(self, weight: PyTree, op: Operation | None = None, name: str | None = None):
        super().__init__(weight, _elementwise(op), name=name)

    def execute(self, x: PyTree = None) -> PyTree:
        return self.op(x, self.value)


class NonTempParam(ETraceParam):
    """A `ParamState` that is kept out of the traces (`braintrace.stop_trace`): only its effect at
    the same step is seen.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     weight = braintrace.NonTempParam(jnp.ones((2, 3)), lambda x, w: x @ w)
    >>> weight.execute(jnp.ones((1, 2))).tolist()
    [[2.0, 2.0, 2.0]]
    """

    def __init__(self, value: PyTree, op: Operation, name: str | None = None):
        super().__init__(value, op, name=name)

    def execute(self, x: PyTree) -> PyTree:
        return self.op(x, stop_trace(self.value))


class FakeETraceParam:
    """A constant with an operation: no state, no gradient.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     constant = braintrace.FakeETraceParam(jnp.ones((2, 3)), lambda x, w: x @ w)
    >>> constant.execute(jnp.ones((1, 2))).tolist()
    [[2.0, 2.0, 2.0]]
    """

    def __init__(self, value: PyTree, op: Operation):
        self.value, self.op = value, _operation(op)

    def execute(self, x: PyTree) -> PyTree:
        """The operation of `x` and the value."""
        return self.op(x, self.value)


class FakeElemWiseParam(FakeETraceParam):
    """A constant with a function of its own elements: no state, no gradient.

    >>> import warnings, braintrace, jax.numpy as jnp
    >>> with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
    ...     constant = braintrace.FakeElemWiseParam(jnp.array([-1.0, 2.0]), jnp.abs)
    >>> constant.execute().tolist()
    [1.0, 2.0]
    """

    def __init__(self, weight: PyTree, op: Operation | None = None, name: str | None = None):
        super().__init__(weight, _elementwise(op))

    def execute(self, x: PyTree = None) -> PyTree:
        return self.op(x, self.value)


def _operation(op: Operation) -> Operation:
    if not callable(op):
        raise UsageError(
            "Not an operation.",
            got=type(op).__name__,
            expected="an ETraceOp, or a function (x, w) -> y",
            do="pass braintrace.MatMulOp(), say",
        )
    return op


def _elementwise(op: Operation | None) -> ETraceOp:
    if isinstance(op, ETraceOp):
        return op
    return ElemWiseOp(None if op is None else _operation(op))


def _with_bias(weights: PyTree) -> tuple[PyTree, PyTree]:
    if isinstance(weights, dict):
        _check_names(weights, "weight")
        return weights["weight"], weights.get("bias")
    return weights, None


def _check_names(weights: PyTree, *names: str) -> None:
    if not isinstance(weights, dict) or not set(names) <= set(weights):
        raise UsageError(
            "The weights of the operation are missing.",
            got=list(weights) if isinstance(weights, dict) else type(weights).__name__,
            expected=f"a dict with {' and '.join(map(repr, names))}",
        )


def _masked(weight: PyTree, mask: ArrayLike | None) -> PyTree:
    if mask is None:
        return weight
    masked = fitted("MatMulOp", lambda: weight * array("weight_mask", mask), weight_mask=mask)
    if np.shape(masked) != np.shape(weight):
        got, expected = f"shape {np.shape(mask)}", f"one that fits {np.shape(weight)}"
        raise UsageError("Invalid weight_mask.", got=got, expected=expected)
    return masked
