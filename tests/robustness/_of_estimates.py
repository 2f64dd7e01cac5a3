"""The cases of synthetic gradients: the estimator, and how it learns."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp

import braintrace
from braintrace import SyntheticGradient

from . import _bad_values as values
from ._front_ends import CARRY, PARAMS, B, N, O, T, X, Y, cell, squared_error
from ._options import FLAGS, FROM_ZERO, REALS, WHOLE


def calls_of_estimates() -> Iterator[tuple[str, Any, Any]]:
    learner = braintrace.compile(cell, "dni", X[0], params=PARAMS, carry=CARRY)
    state, other = (
        learner.init(PARAMS, CARRY),
        braintrace.compile(cell, "d_rtrl", X[0], params=PARAMS, carry=CARRY),
    )

    def train(loss_fn: Any = squared_error, **more: Any) -> Any:
        of = [more.pop(k, v) for k, v in _GIVEN.items()]
        return braintrace.train_synthetic_gradient(*of, loss_fn=loss_fn, **more)

    _GIVEN = {"learner": learner, "params": PARAMS, "state": state, "xs": X, "ys": Y}
    bad = lambda kind: {
        k: v for k, v in kind.items() if not isinstance(v, values.Right | values.Refused)
    }
    yield (
        "train_synthetic_gradient",
        train,
        (
            {},
            {
                "learner": {"none": None, "another": other},
                "state": {"none": None, "another": other.init(PARAMS, CARRY)},
                "loss_fn": bad(values.LOSSES),
                "mask": {k: v for k, v in bad(values.MASKS).items() if k != "negative"},
                "reset": {k: v for k, v in bad(values.RESETS).items() if k != "scalar"},
                "xs": bad(values.INPUTS),
                "ys": bad(values.TARGETS),
                "chunk_size": WHOLE | {"no part": T + 1},
                "epochs": WHOLE,
                "refresh": WHOLE,
                "lr": dict(REALS.items()),
                "ends": FLAGS,
                "optimizer": {"string": "adam", "number": 3},
                "batch_size": {"another": B + 1, "string": "x"},
            },
        ),
    )
    yield (
        "SyntheticGradient",
        SyntheticGradient,
        (
            {},
            {
                "hidden_width": {k: v for k, v in WHOLE.items() if k != "None"},
                "scale": {"negative": -1.0, "NaN": jnp.nan, "string": "x", "None": None},
                "seed": FROM_ZERO,
            },
        ),
    )
    weights = SyntheticGradient.weights(state)
    yield (
        "SyntheticGradient.placed",
        SyntheticGradient.placed,
        (
            {"state": state, "weights": weights},
            {
                "state": {"none": None, "another": other.init(PARAMS, CARRY), "string": "x"},
                "weights": {"none": [], "others": [jnp.ones((N, O + 7)), jnp.ones(N)]},
            },
        ),
    )
