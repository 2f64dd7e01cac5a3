"""Carriers: what an algorithm stores in place of the influence of a weight on the hidden state."""

import abc
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from ..analysis import BatchAxis, CellGraph, Site
from ._sensitivity import Sensitivity

Traces = Any
Sums = dict[Any, Any]  # the gradient so far, by the variable of the weight


class Carrier(abc.ABC):
    """A rule for storing eligibility and for turning learning signals into weight gradients.

    The signals of step t are `entry`, the derivative of L_t with respect to the hidden state before
    the step, and `drives`, for each site that with respect to its y. Both enter linearly. Traces
    are a pytree; `before` and `after` are those of steps t-1 and t.
    """

    #: Whether `advance` reads the sensitivities (D and f) and not the data alone.
    needs_dynamics: ClassVar[bool] = True
    #: Whether `factors` is the whole gradient, so that nothing is left to `contract`.
    factored: ClassVar[bool] = False
    #: What the traces leave out of the dynamics inside a position, as a reason in the certificate;
    #: '' for nothing.
    approximation: ClassVar[str] = ""
    #: Whether it carries the influence on a whole layer, so that the recurrence within the layer is
    #: kept.
    whole_layer: ClassVar[bool] = False

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> "Carrier":
        """The carrier with what it reads from the model (`leak_of` a group) put in as numbers."""
        return self

    @abc.abstractmethod
    def init(self, graph: CellGraph) -> Traces:
        """Zero traces."""

    def of_site(self, traces: Traces, site: int) -> Any:
        """The part of the traces that belongs to one site; what sites share is the first one's."""
        return traces[site]

    @abc.abstractmethod
    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity, reset: Any) -> Traces:
        """The traces after the step (or steps) that `local` describes; `reset` marks lanes that
        started afresh.
        """

    @abc.abstractmethod
    def contract(self, graph: CellGraph, traces: Traces, entry: Sequence[Any]) -> list[Any]:
        """For each site, the gradient of its weight that `entry`, at the traces' own time, stands
        for.
        """

    def moves_in_place(self, graph: CellGraph, site: Site) -> bool:
        """Whether sequences move the traces of `site` without an array of their size beside them."""
        return False

    def working_bytes(self, graph: CellGraph, steps: int) -> int:
        """What it takes beside the traces to move them over `steps` steps at once."""
        return 0

    def adds_now(self, graph: CellGraph, site: Site) -> bool:
        """Whether `advance_and_contract` adds the site's own gradient of a single step as well."""
        return False

    def advance_and_contract(
        self,
        graph: CellGraph,
        before: Traces,
        local: Sensitivity,
        entry: Sequence[Any],
        sums: Sums,
        now: Sequence[Any] | None,
    ) -> tuple[Traces, Sums]:
        """`advance`, and `sums` (by weight) with what `contract` gives for the traces before it.

        `now`: for a single step, the derivatives with respect to each y; they are for the sites
            that `adds_now` names.
        """
        sums = dict(sums)
        for site, found in zip(graph.sites, self.contract(graph, before, entry), strict=True):
            sums[site.weight] = sums[site.weight] + found.astype(site.weight.dtype)
        return self.advance(graph, before, local, None), sums

    def gradients(
        self,
        graph: CellGraph,
        before: Traces,
        after: Traces,
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
    ) -> list[Any]:
        """For each site, the gradient of its weight at one step: `data` has no time axis; `after`
        is None unless `factored`.
        """
        factors = self.factors(graph, before, after, entry, drives, data)
        total = [
            s.rule.weight_gradient(x, c) for s, (x, c) in zip(graph.sites, factors, strict=True)
        ]
        return (
            total
            if self.factored
            else [a + b for a, b in zip(total, self.contract(graph, before, entry), strict=True)]
        )

    def factors(
        self,
        graph: CellGraph,
        before: Traces,
        after: Traces,
        entry: Sequence[Any],
        drives: Sequence[Any],
        data: list[list[Any]],
    ) -> list[tuple[Any, Any]]:
        """For each site, represented data and a cotangent of y whose weight gradient is that of
        this step.

        Of a carrier whose traces are not products, the step's own part: that of `entry` is
        `contract`'s.
        """
        return [
            (represented(s, d, c.dtype), c)
            for s, d, c in zip(graph.sites, data, drives, strict=True)
        ]

    @property
    def longest_window(self) -> int | None:
        """The most steps that may be done at once; None for any number."""
        return None


def trace_dtype(site: Site, chosen: Any) -> Any:
    """dtype of a site's traces: the chosen one, or that of y; by default at least float32."""
    wide = np.promote_types(np.dtype(site.y.dtype), np.float32)
    if chosen is None:
        return wide
    chosen = np.dtype(chosen)
    return (
        np.result_type(chosen, np.complex64) if wide.kind == "c" and chosen.kind != "c" else chosen
    )


def represented(site: Site, data: list[Any], dtype: Any) -> jax.Array:
    """The site's data as numbers that can be filtered."""
    return site.rule.represent(data).astype(dtype)


def represented_shape(site: Site) -> tuple[int, ...]:
    """Shape of the represented data of one step."""
    data = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in site.data]
    return jax.eval_shape(site.rule.represent, data).shape


def keep_samples(values: jax.Array, axis: BatchAxis | None, reset: Any) -> jax.Array:
    """`values` with the samples that `reset` marks set to zero."""
    if reset is None or (axis is None and reset.size > 1):
        return values
    if axis is None:  # one sample: everything is its own
        return jnp.where(reset.reshape(()), 0, values)
    return jnp.where(axis.along(reset, values.ndim), 0, values)


def along(values: jax.Array, axis: BatchAxis | None, ndim: int) -> jax.Array:
    """Values given for each sample, shaped to multiply an array whose samples lie along `axis`."""
    if values.ndim == 0 or axis is None:
        return values.reshape(-1)[0]
    return axis.along(values, ndim)
