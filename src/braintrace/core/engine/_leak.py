"""The leak of a state group, read from the model itself."""

import numpy as np
from jaxtyping import Array, Float

from .._errors import CompilationError
from ..analysis import CellGraph
from ..signals import random_value
from ..step import Values, prelude
from ..traces import sensitivity


def group_leak(graph: CellGraph, group: int, params: Values | None, xs: Values | None) -> float:
    """dh_t/dh_{t-1} of a group's one state, when it is one constant: the same at all positions and
    at different states.
    """
    slots = graph.groups[group].slots
    names = [graph.leaf_paths[k] for k in graph.groups[group].leaves]
    if params is None:
        raise CompilationError(
            "The leak can be read from the model only when its parameters are known.",
            got="abstract parameters",
            do="compile with concrete parameters, or give the leak as a number",
        )

    def refuse(what: str, got: str, expected: str) -> CompilationError:
        return CompilationError(what, got=got, expected=expected, do="give the leak as a number")

    unread = "The leak cannot be read from the model."
    if len(slots) != 1:
        raise refuse(unread, f"{len(slots)} state variables in the group of {names}", "one")
    if not any(place.group == group for site in graph.sites for place in site.places):
        got = f"no parameter acts on the group of {names}"
        raise refuse(unread, got, "one that is traced")
    rows = [_row(graph, group, params, xs, seed) for seed in (0, 1)]
    values = np.concatenate([np.asarray(r, np.float64).reshape(-1) for r in rows])
    if not np.allclose(values, values[0], rtol=1e-5, atol=1e-7):
        got = f"{values.min():.4g} to {values.max():.4g}"
        raise refuse("The leak of the model is not constant.", got, f"one constant for {names}")
    return float(values[0])


def _row(
    graph: CellGraph, group: int, params: Values, xs: Values | None, seed: int
) -> Float[Array, "..."]:
    """dh_t/dh_{t-1} at random states, shaped as the leaf."""
    random = np.random.default_rng(seed)
    some = lambda v: random_value(v, random)
    carry = [some(v) for v in graph.carry]
    inputs = [x[None] for x in (map(some, graph.xs) if xs is None else xs)]
    rows, _ = sensitivity(graph, prelude(graph, params), carry, inputs).slots[group, 0]
    return rows[graph.hidden.index(graph.groups[group].slots[0].leaf)]
