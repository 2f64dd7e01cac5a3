"""Carriers whose traces are products: a step's gradient is the operation's own weight gradient at
two factors.
"""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import jax

from ..analysis import BatchAxis, CellGraph, Site
from ._carrier import Carrier, keep_samples, represented
from ._filters import leaky_step, leaky_sums


class ProductCarrier(Carrier):
    """A carrier with all of a step's gradient in its `factors`."""

    factored: ClassVar[bool] = True

    @abc.abstractmethod
    def window_factors(
        self,
        graph: CellGraph,
        before: Any,
        slots: Any,
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
        reset: Any,
    ) -> tuple[list[tuple[Any, Any]], Any]:
        """(`factors` of each step of a window, the traces after the last one).

        As `advance` and `factors`, time first everywhere; `slots` are those of each step's
        `Sensitivity`, or None where the carrier does not need the dynamics.
        """


def represented_over_time(site: Site, data: list[Any], dtype: Any, steps: int) -> jax.Array:
    """`represented` for data with time in front."""
    return jax.vmap(lambda *d: represented(site, list(d), dtype), axis_size=steps)(*data)


def filtered_inputs(
    graph: CellGraph,
    site: Site,
    data: list[Any],
    first: Sequence[jax.Array],
    leak: float,
    steps: int,
    reset: Any,
) -> list[jax.Array]:
    """The site's data of each step, filtered from the first of `first`, that once more from the
    next, and so on.
    """
    values = represented_over_time(site, data, first[0].dtype, steps)
    axis = graph.data_axis(site)
    found = []
    for old in first:
        values = filtered(values, old, leak, axis, reset)
        found.append(values)
    return found


def filtered(
    values: jax.Array, first: jax.Array, leak: float, axis: BatchAxis | None, reset: Any
) -> jax.Array:
    """`leaky_step` over the leading axis of `values`, from `first`; `reset` marks, at each step,
    lanes that start afresh.
    """
    if reset is None:
        return leaky_sums(values, first, leak)

    def one(old: jax.Array, at: Any) -> tuple[jax.Array, jax.Array]:
        new = leaky_step(keep_samples(old, axis, at[1]), at[0], leak).astype(old.dtype)
        return new, new

    return jax.lax.scan(one, first, (values, reset))[1]
