"""The cases of all that is public beside learners: checks, operators, layers, tasks, reports, site
rules, and the names for programs of the PyPI package.
"""

import functools
import warnings
from collections.abc import Iterator
from typing import Any

import brainstate
import brainunit as u
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

import braintrace
from braintrace import checks, nn, tasks

from . import _bad_values as values
from ._front_ends import CARRY, FRONT_ENDS, PARAMS, B, N, O, T, X, Y, cell, squared_error
from ._options import FLAGS, FROM_ZERO, SEEDS, WHOLE, plain
from ._outcomes import Case, Refusal

_FUNCTION, _BRAINSTATE = FRONT_ENDS[0], FRONT_ENDS[3]
_REAL = {"NaN": np.nan, "string": "x", "None": None, "negative": -1.0, "complex": 1j, "list": [1.0]}
_TENSORS = {"string": "x", "None": None, "a function": jnp.tanh, "objects": np.full((3, 4), None)}


def other_cases() -> Iterator[Case]:
    for name, call, arguments in (*_checks(), *_operators(), *_layers(), *_tasks(), *_compat()):
        valid, kinds = arguments
        for argument, kind in kinds.items():
            for label, value in kind.items():
                given = {**valid, argument: plain(value)}
                refusal = value.refusal if isinstance(value, values.Refused) else None
                called = lambda c=call, g=given: c(**g)
                yield Case(f"{name}, {argument}: {label}", called, refuses=refusal)


def _sequence(function: Any) -> Any:
    """A function of a cell and sequences, by keywords."""

    def call(loss_fn: Any = squared_error, xs: Any = X, ys: Any = Y, **more: Any) -> Any:
        params, carry = more.pop("params", PARAMS), more.pop("carry", CARRY)
        return function(cell, params, carry, xs, ys, loss_fn=loss_fn, **more)

    return call


def _asserting(function: Any) -> Any:
    def call(loss_fn: Any = squared_error, **more: Any) -> Any:
        learner, state = more.pop("learner", _FUNCTION.learner), more.pop("state", _FUNCTION.state)
        return function(learner, PARAMS, state, X, Y, loss_fn=loss_fn, **more)

    return call


def _bad(kind: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kind.items() if not isinstance(v, values.Right | values.Refused)}


_LAYER = checks.Layer(
    lambda p, x, own, one: x @ p["w"], lambda p, h, y: 0.5 * h + y, lambda h: jnp.tanh(h)
)
_LAYERED = checks.LayeredCell((_LAYER,), lambda p, z: z @ p["o"])


def _oracle(function: Any) -> Any:
    def call(loss_fn: Any = squared_error, xs: Any = X, ys: Any = Y, **more: Any) -> Any:
        layered, carry = more.pop("cell", _LAYERED), more.pop("carry", (CARRY,))
        return function(layered, PARAMS, carry, xs, ys, loss_fn=loss_fn, **more)

    return call


def _checks() -> Iterator[tuple[str, Any, Any]]:
    losses, masks = _bad(values.LOSSES), _bad(values.MASKS)
    of_loss = {"loss_fn": losses, "mask": masks, "reduction": _bad(values.REDUCTIONS)}
    vectors = "over the samples", "one value", "more values"  # nothing is known of the samples here
    losses = {k: v for k, v in losses.items() if k not in vectors}
    of_loss["loss_fn"] = losses
    of_reset = of_loss | {"reset": _bad(values.RESETS)}
    fits = "more features", "more samples", "no samples", "no features", "complex", "dict", "keys"
    of_xs = {k: values.in_step(v) if k in fits else v for k, v in _bad(values.INPUTS).items()}
    scan = Refusal(TypeError, "carry has type float32", "JAX's scan says which dtypes differ")
    of_xs["complex"] = values.Refused(of_xs["complex"].value, scan)
    del of_xs["booleans"]  # which a cell may take
    sequences = {"xs": of_xs, "ys": _bad(values.TARGETS)}
    yield "checks.bptt_gradient", _sequence(checks.bptt_gradient), ({}, of_reset | sequences)
    analysis = {"max_slots": WHOLE, "unroll_limit": FROM_ZERO}
    yield "checks.d_rtrl_oracle", _sequence(checks.d_rtrl_oracle), ({}, of_reset | analysis)
    tolerances = {k: v for k, v in _REAL.items() if k != "None"}
    more = {
        "tolerance": tolerances,
        "windows": {"number": 3, "string": "x", "of zero": (0,), "of strings": ("a",)},
        "multi_step": FLAGS,
    }
    yield "checks.check_gradients", _asserting(checks.check_gradients), ({}, more)
    paths = {"unknown": ["x"], "number": 3}
    of_paths = {"paths": paths, "tolerance": tolerances}
    yield "checks.assert_gradients_exact", _asserting(checks.assert_gradients_exact), ({}, of_paths)
    reference = {"paths": paths, "rtol": tolerances, "reference": {"another tree": {"w": X}}}
    yield (
        "checks.assert_gradients_match",
        _asserting(checks.assert_gradients_match),
        ({"window": 1}, reference),
    )
    yield (
        "checks.assert_not_dead",
        checks.assert_not_dead,
        (
            {"gradients": {"w": X}},
            {
                "gradients": {
                    "string": "x",
                    "of strings": {"w": "x"},
                    "of functions": {"w": jnp.tanh},
                },
                "floor": _REAL,
            },
        ),
    )
    given = {"online": {"w": X}, "reference": {"w": X}, "certificates": {"['w']": "exact"}}
    yield (
        "checks.compare_gradients",
        checks.compare_gradients,
        (
            given,
            {
                "online": {"string": "x", "of strings": {"w": "x"}, "another shape": {"w": X[0]}},
                "reference": {"another tree": {"v": X}, "another shape": {"w": X[0]}, "None": None},
                "certificates": {"none": {}, "unknown": {"['w']": "sure"}, "string": "exact"},
                "tolerance": tolerances,
            },
        ),
    )
    decays = _REAL | {"above": 2.0}
    oracles = {
        "pp_prop_oracle": {"decays": (0.5, 0.5)},
        "ottt_oracle": {"leak": 0.5},
        "otpe_oracle": {"leak": 0.5},
        "eprop_oracle": {},
        "layered_oracle": {},
        "osttp_oracle": {"y_target": jnp.ones((T, B, O)), "B_list": [jnp.ones((O, N))]},
    }
    of_oracles = {
        "pp_prop_oracle": {"decays": decays | {"three": (0.5, 0.5, 0.5), "of strings": ("a", "b")}},
        "ottt_oracle": {"leak": decays, "bias_trace": FLAGS},
        "otpe_oracle": {"leak": decays, "approximate": FLAGS},
        "eprop_oracle": {"kappa": {k: v for k, v in decays.items() if k != "None"}},
        "layered_oracle": {"recurrent": FLAGS},
        "osttp_oracle": {
            "y_target": _bad(values.PROJECTED),
            "B_list": {"None": None, "another shape": [jnp.ones((O, N + 1))], "string": "x"},
            "exact": FLAGS,
        },
    }
    some = {
        "loss_fn": {k: losses[k] for k in ("integer", "two axes", "not a function", "string")},
        "mask": {k: masks[k] for k in ("complex", "NaN", "longer", "string")},
        "reduction": {"none": "none"},
        "cell": {"a function": cell, "None": None},
    }
    for name, valid in oracles.items():
        yield f"checks.{name}", _oracle(getattr(checks, name)), (valid, some | of_oracles[name])
    product = {"operation": jnp.dot, "x": jnp.ones((2, 3)), "w": jnp.ones((3, 4)), "weight": 1}
    site = lambda operation, x, w, **more: checks.check_site_rule(operation, x, w, **more)
    yield (
        "checks.check_site_rule",
        site,
        (
            product,
            {
                "operation": {
                    "None": None,
                    "without a rule": lambda x, w: jnp.arctan2(w, w),
                    "string": "dot",
                },
                "weight": {"two": 2, "negative": -1, "string": "w", "fraction": 0.5},
                "x": {"string": "x", "None": None},
                "rtol": tolerances,
                "make": {"number": 3},
                "seed": {"string": "x", "negative": -1},
            },
        ),
    )
    layer = {"drive": jnp.tanh, "move": jnp.tanh, "out": jnp.tanh}
    none = {"number": 3, "None": None}
    yield "checks.Layer", checks.Layer, (layer, dict.fromkeys(layer, none))
    layered = {"layers": (_LAYER,), "readout": jnp.tanh}
    yield (
        "checks.LayeredCell",
        checks.LayeredCell,
        (
            layered,
            {
                "layers": {"number": 3, "empty": (), "of functions": (jnp.tanh,)},
                "readout": none,
                "leak": {"string": "x", "NaN": np.nan, "above": 2.0},
            },
        ),
    )


def _operators() -> Iterator[tuple[str, Any, Any]]:
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


_SIZES = {
    "zero": 0,
    "negative": -2,
    "fraction": 2.5,
    "string": "3",
    "None": None,
    "boolean": True,
    "two": (3, 4),
    "empty": (),
    "array": jnp.ones(2, int),
}
_OF_BRAINSTATE = Refusal(ValueError, "does not match", "brainstate's own error, with both shapes")
_INITS = {"string": "zeros", "a wrong shape": values.Refused(jnp.ones(9), _OF_BRAINSTATE)}


def _in_time(make: Any) -> Any:
    def call(**given: Any) -> Any:
        with brainstate.environ.context(dt=0.1 * u.ms):
            return make(**given)

    return call


def _layers() -> Iterator[tuple[str, Any, Any]]:
    sizes = {"in_size": 3, "out_size": 4}
    cells = (
        "GRUCell",
        "MGUCell",
        "LSTMCell",
        "URLSTMCell",
        "MinimalRNNCell",
        "CFNCell",
        "MiniGRU",
        "MiniLSTM",
        "ValinaRNNCell",
    )
    activations = {"unknown": "no such", "number": 3, "None": None}
    for name in cells:
        kinds: dict[str, Any] = {"in_size": _SIZES, "out_size": _SIZES, "w_init": _INITS}
        if name not in ("MinimalRNNCell", "MiniGRU", "MiniLSTM"):
            kinds["activation"] = activations
        yield f"nn.{name}", getattr(nn, name), (sizes, kinds)
    taus = {
        "zero": 0 * u.ms,
        "negative": -1 * u.ms,
        "no unit": 5.0,
        "another unit": 5 * u.mV,
        "string": "5 ms",
        "None": None,
        "NaN": np.nan * u.ms,
    }
    of_readout = {"in_size": _SIZES, "out_size": _SIZES, "tau": taus, "w_init": _INITS}
    yield "nn.LeakyRateReadout", _in_time(nn.LeakyRateReadout), (sizes, of_readout)
    spikes = {
        "V_th": {"zero": 0.0, "negative": -1.0, "string": "x", "None": None, "NaN": np.nan},
        "spk_reset": {"unknown": "x", "None": None},
        "spk_fun": {"string": "x", "None": None},
    }
    yield "nn.LeakySpikeReadout", _in_time(nn.LeakySpikeReadout), (sizes, of_readout | spikes)
    yield (
        "nn.LRUCell",
        nn.LRUCell,
        (
            {"d_model": 3, "d_hidden": 4},
            {
                "d_model": _SIZES,
                "d_hidden": _SIZES,
                "r_min": _REAL | {"above": 2.0},
                "r_max": _REAL | {"above": 2.0},
                "max_phase": _REAL | {"zero": 0.0},
            },
        ),
    )
    yield (
        "nn.GroupedLinear",
        nn.GroupedLinear,
        (
            {"num_groups": 2, "in_features": 3, "out_features": 4},
            {
                "num_groups": _SIZES,
                "in_features": _SIZES,
                "out_features": _SIZES,
                "w_init": _INITS,
                "param_type": {"string": "x", "None": None},
            },
        ),
    )
    yield (
        "nn.LoRA",
        nn.LoRA,
        (
            {"in_features": 3, "lora_rank": 2, "out_features": 4},
            {
                "in_features": _SIZES,
                "lora_rank": _SIZES,
                "out_features": _SIZES,
                "base_module": {"number": 3},
            },
        ),
    )
    yield (
        "nn.SparseLinear",
        nn.SparseLinear,
        (
            {"spar_mat": sparse.BCOO.fromdense(jnp.eye(3))},
            {
                "spar_mat": {"None": None, "string": "x", "dense": jnp.eye(3), "number": 3},
                "in_size": {"another": 4, "string": "x"},
                "b_init": _INITS,
            },
        ),
    )


def _tasks() -> Iterator[tuple[str, Any, Any]]:
    lengths = WHOLE
    rates = _REAL | {"above": 2.0}
    noise = {"noise": _REAL}
    known = {"batch": 2, "seed": 0}
    common = {"batch": lengths, "seed": SEEDS | {"None": None, "negative": -1}}
    yield (
        "tasks.delayed_match_to_sample",
        tasks.delayed_match_to_sample,
        (
            known,
            common
            | noise
            | {
                "delay": FROM_ZERO,
                "stimulus": lengths,
                "response": lengths,
                "channels": lengths | {"one": 1},
            },
        ),
    )
    yield (
        "tasks.evidence_accumulation",
        tasks.evidence_accumulation,
        (
            {**known, "cues": 2, "cue": 2, "slot": 3, "delay": 2, "recall": 2},
            common
            | {
                "cues": lengths,
                "cue": lengths | {"longer than its slot": 9},
                "slot": lengths,
                "delay": FROM_ZERO,
                "recall": lengths,
                "channels": lengths | {"six": 6},
                "rate": rates,
                "background": rates,
                "majority": rates,
            },
        ),
    )
    yield (
        "tasks.copy_memory",
        tasks.copy_memory,
        (known, common | {"symbols": lengths, "length": lengths, "delay": FROM_ZERO}),
    )
    yield (
        "tasks.delayed_xor",
        tasks.delayed_xor,
        (
            known,
            common
            | noise
            | {
                "delay": FROM_ZERO,
                "pulse": lengths,
                "response": lengths,
                "channels": lengths | {"one": 1},
            },
        ),
    )
    yield (
        "tasks.pattern_generation",
        tasks.pattern_generation,
        (
            known,
            common
            | {
                "steps": lengths,
                "channels": lengths,
                "targets": lengths,
                "rate": rates,
                "periods": {
                    "none": (),
                    "zero": (0.0,),
                    "negative": (-1.0,),
                    "string": "x",
                    "number": 3.0,
                },
                "pattern_seed": SEEDS,
            },
        ),
    )
    frames, length, label = np.ones((5, 2)), np.array([2, 3]), np.array([0, 1])
    yield (
        "tasks.pad_sequences",
        tasks.pad_sequences,
        (
            {"frames": frames, "length": length, "label": label},
            {
                "frames": {
                    "fewer": frames[:4],
                    "flat": frames[:, 0],
                    "string": "x",
                    "None": None,
                    "objects": np.full((5, 2), None),
                    "complex": frames * 1j,
                },
                "length": {
                    "fractions": [2.5, 2.5],
                    "negative": [-1, 6],
                    "string": "x",
                    "one": [5],
                    "square": [[2, 3]],
                },
                "label": {
                    "fewer": [0],
                    "fractions": [0.5, 1.0],
                    "string": "x",
                    "strings": ["a", "b"],
                },
                "steps": {"shorter": 2, "fraction": 3.5, "string": "x", "boolean": True},
            },
        ),
    )
    data = tasks.pad_sequences(frames, length, label)
    dealt = lambda **given: list(tasks.minibatches(**given))
    yield (
        "tasks.minibatches",
        dealt,
        (
            {"data": data, "batch_size": 1, "seed": 0},
            {
                "data": {"None": None, "array": frames, "tuple": (1, 2)},
                "batch_size": WHOLE | {"too many": 3},
                "seed": SEEDS | {"negative": -1},
                "epoch": FROM_ZERO,
                "drop_remainder": FLAGS,
            },
        ),
    )
    yield "tasks.japanese_vowels", tasks.japanese_vowels, ({}, {"standardize": FLAGS})


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


def _compat() -> Iterator[tuple[str, Any, Any]]:
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
            ({first: w, "op": lambda x, w: x @ w}, {"op": {"None": None, "string": "x"}}),
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
    for name in ("find_hidden_groups_from_module", "find_hidden_param_op_relations_from_module"):
        find = functools.partial(_of_module, getattr(braintrace, name))
        yield (
            name,
            find,
            ({}, {"model": {"None": None, "a function": cell}, "other": {"option": 3}}),
        )
