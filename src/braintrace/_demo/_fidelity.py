"""How well the online gradient points along that of BPTT."""

import functools
from typing import Any

import brainstate
import jax
import numpy as np

from ..tasks import Sequences
from ._methods import Gradient, Values, named
from ._training import Trainer, batches


class Fidelity:
    """Compares the gradients of two trainers of one network at the same weights, parameter by
    parameter.
    """

    def __init__(self, online: Trainer, reference: Trainer):
        jit: Any = brainstate.transform.jit
        self.pairs = [(trainer, jit(trainer.gradient)) for trainer in (online, reference)]

    def cosines(self, weights: Values, data: Sequences, seed: int) -> dict[str, float]:
        """The cosine between the gradients of an epoch, for each array of parameters; NaN where a
        gradient is zero.
        """
        online, reference = (_epoch(*pair, weights, data, seed) for pair in self.pairs)
        return {name: cosine(online[name], reference[name]) for name in online}


def _epoch(
    trainer: Trainer, gradient: Gradient, weights: Values, data: Sequences, seed: int
) -> dict[str, np.ndarray]:
    """The gradient of an epoch, by name."""
    trainer.weights.assign_dict_values(weights)
    each = (gradient(*batch)[0] for batch in batches(trainer.recipe, data, seed, 0))
    total = functools.reduce(functools.partial(jax.tree.map, np.add), each)
    return {name: np.asarray(array) for name, array in named(total).items()}


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of the angle between two arrays taken as vectors."""
    a, b = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else float("nan")
