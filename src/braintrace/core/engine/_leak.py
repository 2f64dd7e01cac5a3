"""The leak of a state group, read from the model itself."""

import functools

import numpy as np

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

    refuse = functools.partial(CompilationError, do="give the leak as a number")
    if len(slots) != 1 or all(p.group != group for site in graph.sites for p in site.places):
        lacking = f"no parameter acts on the group of {names}", "one that is traced"
        several = f"{len(slots)} state variables in the group of {names}", "one"
        got, expected = several if len(slots) != 1 else lacking
        raise refuse("The leak cannot be read from the model.", got=got, expected=expected)
    values = []
    for seed in (0, 1):
        random = np.random.default_rng(seed)
        carry = [random_value(v, random) for v in graph.carry]
        inputs = [random_value(v, random) for v in graph.xs] if xs is None else xs
        moved = sensitivity(graph, prelude(graph, params), carry, [x[None] for x in inputs])
        rows, _ = moved.slots[group, 0]
        values += np.ravel(rows[graph.hidden.index(slots[0].leaf)]).tolist()
    if not np.allclose(values, values[0], rtol=1e-5, atol=1e-7):
        raise refuse(
            "The leak of the model is not constant.",
            got=f"{min(values):.4g} to {max(values):.4g}",
            expected=f"one constant for {names}",
        )
    return values[0]
