"""The cases of `braintrace.checks`."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from braintrace import checks

from . import _bad_values as values
from ._front_ends import CARRY, FRONT_ENDS, PARAMS, B, N, O, T, X, Y, cell, squared_error
from ._options import FLAGS, FROM_ZERO, REALS, WHOLE
from ._outcomes import Refusal

_FUNCTION = FRONT_ENDS[0]


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


def calls_of_checks() -> Iterator[tuple[str, Any, Any]]:
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
    sequences = {"xs": of_xs, "ys": _bad(values.TARGETS)}
    yield "checks.bptt_gradient", _sequence(checks.bptt_gradient), ({}, of_reset | sequences)
    analysis = {"max_slots": WHOLE, "unroll_limit": FROM_ZERO}
    yield "checks.d_rtrl_oracle", _sequence(checks.d_rtrl_oracle), ({}, of_reset | analysis)
    tolerances = {k: v for k, v in REALS.items() if k != "None"}
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
                "floor": REALS,
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
    decays = REALS | {"above": 2.0}
    oracles = {
        "pp_prop_oracle": {"decays": (0.5, 0.5)},
        "ottt_oracle": {"leak": 0.5},
        "otpe_oracle": {"leak": 0.5},
        "eprop_oracle": {},
        "layered_oracle": {},
        "osttp_oracle": {"y_target": jnp.ones((T, B, O)), "B_list": [jnp.ones((O, N))]},
        "three_factor_oracle": {"modulator": jnp.ones((T, B))},
        "kf_rtrl_oracle": {"signs": jnp.ones((T, B, 2))},
        "ok_rtrl_oracle": {"signs": jnp.ones((T, B, 2)), "rank": 1},
        "instantaneous_oracle": {},
        "dni_oracle": {"estimate": lambda h: h},
        "etlp_oracle": {"y_target": jnp.ones((T, B, O)), "B_list": [jnp.ones((O, N))]},
        "decolle_oracle": {
            "y_target": jnp.ones((T, B, O)),
            "G_list": [jnp.ones((N, O))],
            "local_loss": lambda r, y: ((r - y) ** 2).mean(-1),
        },
    }
    signs = {
        "string": "x",
        "other numbers": jnp.full((T, B, 2), 0.5),
        "another shape": jnp.ones((T, B, 7)),
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
        "etlp_oracle": {
            "y_target": _bad(values.PROJECTED),
            "B_list": {"None": None, "another shape": [jnp.ones((O, N + 1))], "string": "x"},
            "events": {"longer": np.ones(T + 1, bool), "of floats": np.ones(T)},
        },
        "decolle_oracle": {
            "y_target": _bad(values.PROJECTED),
            "G_list": {"None": None, "another shape": [jnp.ones((N + 1, O))], "string": "x"},
            "local_loss": {"None": None, "string": "mse"},
        },
        "instantaneous_oracle": {
            "cell": {"None": None},
            "chosen": {"longer": np.ones(T + 1, bool), "of floats": np.ones(T)},
        },
        "dni_oracle": {"cell": {"None": None}, "estimate": {"None": None}, "chunk_size": WHOLE},
        "kf_rtrl_oracle": {"cell": {"None": None}, "signs": signs},
        "ok_rtrl_oracle": {"signs": signs, "rank": WHOLE},
        "three_factor_oracle": {
            "modulator": _bad(values.MODULATORS),
            "kappa": {k: v for k, v in decays.items() if k != "None"},
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
    laws = {"string": "bytes", "unknown": ["law"], "none": [], "number": 3}
    cells = {"string": "leaky", "unknown": ["cell"], "none": {}, "no example": {"mine": 3}}
    unknown = {"string": "no such rule", "number": 3, "class": int}
    yield (
        "checks.check_rule",
        checks.check_rule,
        (
            {"rule": "d_rtrl", "cells": ["leaky"], "laws": ["bytes"]},
            {"rule": unknown, "cells": cells, "laws": laws, "raises": FLAGS}
            | {"tolerance": tolerances},
        ),
    )
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
