"""The cases of reports, and of the names for programs of the PyPI package."""

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import brainstate
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

import braintrace

from ._front_ends import FRONT_ENDS, X, cell
from ._options import FLAGS, SEEDS, WHOLE

_FUNCTION = FRONT_ENDS[0]
_BRAINSTATE = FRONT_ENDS[3]


def _learner() -> Any:
    return _FUNCTION.learner


def _quietly(name: str) -> Any:
    """A name of version 0.1, without its warning."""

    def call(**given: Any) -> Any:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            return getattr(braintrace, name)(**given)

    return call


def _old(name: str, inputs: Any, weights: Any, **made: Any) -> Any:
    def call(inputs: Any = inputs, weights: Any = weights, **more: Any) -> Any:
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            return getattr(braintrace, name)(**{**made, **more})(inputs, weights)

    return call


_OWN = object()


def _of_module(function: Any, model: Any = _OWN, **given: Any) -> Any:
    return function(_BRAINSTATE.learner.model if model is _OWN else model, X[0], **given)


def calls_of_compat() -> Iterator[tuple[str, Any, Any]]:
    decays = {
        "one": 1.0,
        "negative": -0.1,
        "NaN": np.nan,
        "string": "x",
        "None": None,
        "boolean": True,
        "list": [0.5],
    }
    inits = {"string": "x", "None": None, "objects": np.full(2, None), "a function": jnp.tanh}
    zero = jnp.zeros(2)
    yield (
        "KappaFilter",
        braintrace.KappaFilter,
        ({"init_value": zero, "kappa": 0.5}, {"init_value": inits, "kappa": decays}),
    )
    leaks = {k: v for k, v in decays.items() if k != "one"}
    yield (
        "PresynapticTrace",
        braintrace.PresynapticTrace,
        ({"init_value": zero, "leak": 0.5}, {"init_value": inits, "leak": leaks}),
    )
    updates = {"x": {"another shape": jnp.ones(3), "string": "x", "None": None}}
    for name in ("KappaFilter", "PresynapticTrace"):
        yield f"{name}.update", getattr(braintrace, name)(zero, 0.5).update, ({}, updates)
    yield (
        "GradExpon",
        braintrace.GradExpon,
        (
            {"grad_shape": zero, "tau_or_decay": 0.5},
            {"grad_shape": {"string": "x", "a function": jnp.tanh}, "tau_or_decay": decays},
        ),
    )
    yield (
        "GradExpon.update",
        braintrace.GradExpon(zero, 0.5).update,
        (
            {},
            {
                "gradients": {
                    "another tree": {"w": zero},
                    "another shape": jnp.ones(3),
                    "string": "x",
                    "None": None,
                }
            },
        ),
    )
    yield (
        "FixedRandomFeedback",
        braintrace.FixedRandomFeedback,
        (
            {"n_target": 2, "n_layer": 3, "key": 0},
            {
                "n_target": WHOLE,
                "n_layer": WHOLE,
                "key": SEEDS | {"None": None},
                "init_scale": {"zero": 0.0, "negative": -1.0, "string": "x", "NaN": np.nan},
            },
        ),
    )
    project = braintrace.FixedRandomFeedback(2, 3, 0).project
    yield (
        "FixedRandomFeedback.project",
        project,
        ({}, {"target": {"another shape": jnp.ones(5), "string": "x", "None": None}}),
    )
    x, w = jnp.ones((1, 2)), jnp.ones((2, 3))
    weights = {"string": "x", "None": None, "empty": {}, "another shape": jnp.ones((5, 3))}
    data = {"string": "x", "None": None, "another shape": jnp.ones((1, 5))}
    yield (
        "MatMulOp",
        _old("MatMulOp", x, w),
        (
            {},
            {
                "weights": weights,
                "inputs": data,
                "weight_fn": {"string": "x", "number": 3},
                "weight_mask": {"another shape": jnp.ones(7), "string": "x"},
                "apply_weight_fn_before_mask": FLAGS,
            },
        ),
    )
    yield (
        "LoraOp",
        _old("LoraOp", x, {"B": w, "A": w.T}),
        (
            {},
            {
                "weights": {k: weights[k] for k in ("string", "None", "empty")},
                "inputs": data,
                "alpha": {"string": "x"},
            },
        ),
    )
    yield (
        "ElemWiseOp",
        _old("ElemWiseOp", None, w),
        ({}, {"fn": {"string": "x", "number": 3}, "weights": {"string": "x", "None": None}}),
    )
    matrix = sparse.BCOO.fromdense(jnp.eye(2))
    yield (
        "SpMatMulOp",
        _old("SpMatMulOp", x, matrix.data, sparse_mat=matrix),
        (
            {},
            {
                "weights": {"string": "x", "None": None},
                "inputs": data,
                "sparse_mat": {"None": None, "dense": w},
            },
        ),
    )
    for name in ("ETraceParam", "NonTempParam", "FakeETraceParam"):
        first = "weight" if name == "ETraceParam" else "value"
        yield (
            name,
            _quietly(name),
            ({first: w, "op": lambda x, w: x @ w}, {"op": {"number": 3, "string": "x"}}),
        )
    for name in ("ElemWiseParam", "FakeElemWiseParam"):
        yield (name, _quietly(name), ({"weight": w}, {"op": {"number": 3, "string": "x"}}))
    yield (
        "ETraceVmap",
        braintrace.ETraceVmap,
        ({}, {"learner": {"None": None, "a model": brainstate.nn.Linear(2, 3), "string": "x"}}),
    )
    yield "ETraceOp", _old("ETraceOp", x, w), ({}, {"inputs": {"without an operation": x}})
    levels = {"three": 3, "negative": -1, "string": "x", "None": None}
    yield "report.to_str", lambda level: _learner().report.to_str(level), ({}, {"level": levels})
    yield "report.show", lambda level: _learner().report.show(level), ({}, {"level": levels})
    yield (
        "CompilationReport",
        braintrace.CompilationReport,
        ({}, {"graph": {"None": None, "string": "x", "a learner": 3}}),
    )
    of_weight = lambda weight: _BRAINSTATE.learner.get_etrace_of(weight)
    yield (
        "get_etrace_of",
        of_weight,
        ({}, {"weight": {"unknown": "x", "path": ("x",), "number": 3, "None": None, "array": w}}),
    )
    of_weights = lambda weights: _BRAINSTATE.call("etrace_grad", weights=weights)
    yield (
        "etrace_grad, brainstate",
        of_weights,
        ({}, {"weights": {"unknown": "x", "of unknown": ["x"], "number": 3, "array": w}}),
    )
    yield from _of_learners()
    graph = functools.partial(_of_module, braintrace.compile_etrace_graph)
    yield (
        "compile_etrace_graph",
        graph,
        (
            {},
            {
                "model": {"None": None, "a function": cell},
                "control_flow": {"string": "x", "number": 3},
                "include_hidden_perturb": FLAGS,
                "include_recurrent_mixing": FLAGS,
            },
        ),
    )
    find = functools.partial(_of_module, braintrace.extract_module_info)
    yield "extract_module_info", find, ({}, {"model": {"None": None, "a function": cell}})
    for name in ("find_hidden_groups_from_module", "find_hidden_param_op_relations_from_module"):
        find = functools.partial(_of_module, getattr(braintrace, name))
        yield (
            name,
            find,
            ({}, {"model": {"None": None, "a function": cell}, "other": {"option": 3}}),
        )


def _of_learners() -> Iterator[tuple[str, Any, Any]]:
    """What a learner shows, and operators that are registered."""
    shown = lambda **given: _BRAINSTATE.learner.show_graph(**given)
    yield "show_graph", shown, ({}, {"verbose": FLAGS, "return_msg": FLAGS})
    of_group = lambda name: lambda x: getattr(_BRAINSTATE.learner.graph.hidden_groups[0], name)(x)
    counts = {"none": [], "too many": [X[0]] * 9}
    yield "concat_hidden", of_group("concat_hidden"), ({}, {"x": counts})
    widths = {"of one number": jnp.ones(()), "wide": jnp.ones((3, 9))}
    yield "split_hidden", of_group("split_hidden"), ({}, {"x": widths})
    functions = {"None": None, "string": "x", "number": 3, "array": jnp.ones(2)}
    yield (
        "register_primitive",
        braintrace.register_primitive,
        (
            {"name": "own", "impl_fn": jnp.dot},
            {
                "name": {"None": None, "number": 3},
                "impl_fn": functions,
                "batched": FLAGS,
                "gradient_enabled": FLAGS,
            },
        ),
    )
    operator = braintrace.register_primitive("own", jnp.dot)
    rules = {k: v for k, v in functions.items() if k != "None"}
    yield (
        "register_etp_rules",
        operator.register_etp_rules,
        ({}, {"dt_to_t": rules, "xy_to_dw": rules, "unknown": {"a rule": jnp.dot}}),
    )
    for name in ("dt_to_t", "xy_to_dw", "init_drtrl", "init_pp"):
        yield f"register_{name}", getattr(operator, f"register_{name}"), ({}, {"fn": rules})
