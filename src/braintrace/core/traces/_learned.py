"""What a rule learns beside its traces, and keeps when they begin again."""

from typing import NamedTuple

import jax
from jaxtyping import Array, PyTree


class Learned(NamedTuple):
    """Weights of a rule's own, shared by all samples, as a part of its traces: no reset sets them
    back.
    """

    weights: list[Array]


def learned_in(traces: PyTree) -> list[Learned]:
    """The `Learned` that traces hold: one or none."""
    return [v for v in jax.tree.leaves(traces, is_leaf=_is_learned) if _is_learned(v)]


def with_learned(traces: PyTree, weights: list[Array]) -> PyTree:
    """Traces with these weights as what is learned."""
    put = lambda v: Learned(list(weights)) if _is_learned(v) else v
    return jax.tree.map(put, traces, is_leaf=_is_learned)


def _is_learned(value: object) -> bool:
    return isinstance(value, Learned)
