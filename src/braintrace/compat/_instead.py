"""Names of release 0.1 of the PyPI package, and what to write in their place."""

import importlib
import warnings
from typing import Any

#: What to write in a name's place.
INSTEAD = {
    "ETraceParam": "a brainstate.ParamState and ordinary JAX, or braintrace.matmul and its like",
    "ElemWiseParam": "a brainstate.ParamState and ordinary JAX, or braintrace.element_wise",
    "NonTempParam": (
        "a brainstate.ParamState and braintrace.stop_trace, or the option `trainable` of "
        "braintrace.compile"
    ),
    "FakeETraceParam": "an array, or a brainstate.FakeState",
    "FakeElemWiseParam": "an array, or a brainstate.FakeState",
    "ETraceOp": "a function",
    "MatMulOp": "x @ w, or braintrace.matmul",
    "ElemWiseOp": "a function of the weight, or braintrace.element_wise",
    "ConvOp": "jax.lax.conv_general_dilated, or braintrace.conv",
    "SpMatMulOp": "x @ matrix, or braintrace.sparse_matmul",
    "LoraOp": "x @ B @ A, or braintrace.lora_matmul",
}


def legacy(name: str) -> Any:
    """The class of a name of 0.1, with a warning that says what to write instead."""
    message = (
        f"braintrace.{name} is a name of release 0.1 of the PyPI package: write {INSTEAD[name]} "
        "instead"
    )
    warnings.warn(message, DeprecationWarning, stacklevel=3)
    return getattr(importlib.import_module("._legacy", __package__), name)
