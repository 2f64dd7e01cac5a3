"""The cases of operators, and of site rules."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

import braintrace

_TENSORS = {"string": "x", "None": None, "a function": jnp.tanh, "objects": np.full((3, 4), None)}


def calls_of_operators() -> Iterator[tuple[str, Any, Any]]:
    x, w = jnp.ones((2, 3)), jnp.ones((3, 4))
    shapes = {"another shape": jnp.ones((5, 5)), "scalar": 1.0, "no axis": jnp.ones(())}
    bias = {"another shape": jnp.ones(7), "string": "b", "objects": np.full(4, None)}
    functions = {"string": "abs", "number": 3, "another shape": lambda w: w[:2]}
    yield (
        "matmul",
        braintrace.matmul,
        (
            {"x": x, "weight": w},
            {
                "x": _TENSORS | shapes,
                "weight": _TENSORS | shapes,
                "bias": bias,
                "weight_fn": functions,
            },
        ),
    )
    yield (
        "grouped_matmul",
        braintrace.grouped_matmul,
        (
            {"x": jnp.ones((2, 4, 3)), "weight": jnp.ones((4, 3, 2))},
            {"x": _TENSORS | shapes, "weight": _TENSORS | shapes, "bias": bias},
        ),
    )
    yield (
        "einsum",
        braintrace.einsum,
        (
            {"equation": "bi,io->bo", "x": x, "weight": w},
            {
                "equation": {
                    "one operand": "bi->b",
                    "no result": "bi,io",
                    "number": 3,
                    "None": None,
                    "other axes": "bi,jio->bo",
                    "unknown axis": "bi,io->bz",
                },
                "x": _TENSORS,
                "weight": _TENSORS | shapes,
            },
        ),
    )
    yield (
        "lora_matmul",
        braintrace.lora_matmul,
        (
            {"x": x, "B": jnp.ones((3, 1)), "A": jnp.ones((1, 4))},
            {
                "x": _TENSORS | shapes,
                "B": _TENSORS | shapes,
                "A": _TENSORS | shapes,
                "alpha": {"string": "1", "None": None},
                "bias": bias,
            },
        ),
    )
    yield (
        "conv",
        braintrace.conv,
        (
            {"x": jnp.ones((2, 8, 3)), "kernel": jnp.ones((3, 3, 4))},
            {
                "x": _TENSORS | shapes,
                "kernel": _TENSORS | shapes,
                "bias": bias,
                "strides": {"zero": (0,), "string": "x", "two": (1, 1), "number": 1},
                "padding": {"unknown": "MOST", "number": 3},
                "feature_group_count": {"zero": 0, "string": "x", "two": 2},
            },
        ),
    )
    yield (
        "embedding",
        braintrace.embedding,
        (
            {"indices": jnp.array([0, 1]), "weight": w},
            {"indices": _TENSORS | {"fractions": jnp.ones(2)}, "weight": _TENSORS | {"row": w[0]}},
        ),
    )
    yield (
        "element_wise",
        braintrace.element_wise,
        ({"weight": w}, {"weight": _TENSORS, "weight_fn": {"string": "abs", "number": 3}}),
    )
    matrix = sparse.BCOO.fromdense(jnp.eye(3))
    yield (
        "sparse_matmul",
        braintrace.sparse_matmul,
        (
            {"x": x, "weight": matrix.data, "sparse_mat": matrix},
            {
                "x": _TENSORS | shapes,
                "weight": _TENSORS | {"more": jnp.ones(9)},
                "sparse_mat": {"None": None, "dense": w, "string": "x"},
                "bias": bias,
            },
        ),
    )
    yield "stop_trace", braintrace.stop_trace, ({}, {"x": {"string": "x", "a function": jnp.tanh}})
    yield (
        "register_site_rule",
        braintrace.register_site_rule,
        (
            {"primitive": None, "make": None},
            {"primitive": {"string": "dot", "number": 3, "None": None}},
        ),
    )
