"""The cases of `braintrace.nn`."""

from collections.abc import Iterator
from typing import Any

import brainstate
import brainunit as u
import jax.numpy as jnp
import numpy as np
from jax.experimental import sparse

from braintrace import nn

from . import _bad_values as values
from ._front_ends import FRONT_ENDS
from ._options import REALS
from ._outcomes import Refusal

_BRAINSTATE = FRONT_ENDS[3]

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


def calls_of_layers() -> Iterator[tuple[str, Any, Any]]:
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
        kinds["param_type"] = {"string": "x", "None": None, "no state": float}
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
                "r_min": REALS | {"above": 2.0},
                "r_max": REALS | {"above": 2.0},
                "max_phase": REALS | {"zero": 0.0},
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
    layer, weights = nn.Linear(3, 4), {"weight": {"weight": jnp.ones((3, 4)), "bias": jnp.ones(4)}}
    bad_weights = {
        "None": None,
        "string": "x",
        "empty": {},
        "unknown": weights | {"other": jnp.ones(2)},
        "a wrong shape": {"weight": {"weight": jnp.ones((4, 3)), "bias": jnp.ones(4)}},
        "strings": {"weight": {"weight": "x", "bias": "x"}},
    }
    yield (
        "nn.load_weights",
        nn.load_weights,
        (
            {"model": layer, "weights": weights},
            {"model": {"None": None, "function": jnp.sin}, "weights": bad_weights},
        ),
    )
