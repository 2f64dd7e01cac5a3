"""Kinds of traces: what an algorithm stores in place of the influence of a weight on the hidden
state.
"""

import abc
import functools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, final

import jax
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Inexact, PyTree

from .._precision import wide
from ..analysis import BatchAxis, CellGraph, Site, axes_of_data, normalisations, short
from ..jaxpr import Var
from ..step import Values
from ._filters import leaky_step
from ._sensitivity import Sensitivity
from ._slots import cleared
from ._zeros import made, zeros

Traces = PyTree[Array]
Sums = dict[Var, Array]  # the gradient so far, by the variable of the weight
# `entry`, and of a single step the derivatives with respect to each y
Cotangents = tuple[Values, Values | None]

_USEFUL_WINDOW = 64
_SMALL_WEIGHT = 1 << 15  # elements whose gradient is added to for little


class StepSignals(NamedTuple):
    """What a step gives to its gradient: `entry`, the derivative of L_t with respect to the hidden
    leaves before the step, `drives`, for each site that with respect to its y, and the operands of
    each site. The derivatives enter linearly.

    >>> from braintrace import rules
    >>> rules.StepSignals._fields
    ('entry', 'drives', 'data')
    """

    entry: Values
    drives: Values
    data: Sequence[Values]


class Carrier(abc.ABC):
    """A rule for storing eligibility and for turning learning signals into weight gradients.

    Traces are a pytree; `before` and `after` are those of steps t-1 and t.

    A kind is one of two: of a `FactorCarrier` the engine moves the traces step by step and makes
    one weight product of a window; those of a `TraceCarrier` move over a whole window at once.

    >>> from braintrace import rules
    >>> [issubclass(kind, rules.Carrier) for kind in (rules.PerParameter, rules.Factored)]
    [True, True]
    """

    #: What the traces of a parameter leave out of the dynamics inside a position, as a reason in
    #: the certificate; '' for nothing.
    approximation: ClassVar[str] = ""

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> "Carrier":
        """The carrier with what it reads from the model (`leak_of` a group) put in as numbers."""
        return self

    def arrange(self, graph: CellGraph) -> CellGraph:
        """The graph with the plan that these traces need: which state belongs together, say."""
        return graph

    def approximates(self, graph: CellGraph, site: Site) -> str:
        """`approximation` where it is that of a site's traces."""
        return self.approximation

    def warnings(self, graph: CellGraph, site: Site) -> list[str]:
        """What of the model may take a site's gradient far from the right one, and what to do."""
        return []

    @abc.abstractmethod
    def zeros(self, graph: CellGraph) -> PyTree:
        """What the traces are before the first step: a tree of `Zeros`."""

    @final
    def init(self, graph: CellGraph) -> Traces:
        """Zero traces, made of `zeros`."""
        return made(self.zeros(graph))

    def of_site(self, traces: Traces, site: int) -> Traces:
        """The part of the traces that belongs to one site; what sites share is the first one's."""
        return traces[site]

    @abc.abstractmethod
    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        """The traces after the step (of a `TraceCarrier` also: steps) that `local` describes.

        A sample that is reset before a step has D = 0 there, and what D = 0 meets is not read.
        """

    @abc.abstractmethod
    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        """The traces with zeros for the samples that are marked, in what D does not move."""

    @abc.abstractmethod
    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        """For each site, the gradient of its weight that `entry`, at the traces' own time, stands
        for. Both have an axis of further samples in front, and the gradient is the sum over it.
        """

    @abc.abstractmethod
    def gradients(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[Array]:
        """For each site, the gradient of its weight at one step, summed over an axis of further
        samples in front of everything. Of `after`, only a `FactorCarrier` reads anything.
        """

    def report(self, graph: CellGraph, traces: Traces, signals: StepSignals) -> PyTree:
        """What `Info.by_step` says of steps that were done at once, time first, out of the traces
        before them (None: zero) and their signals; None for nothing. Drives and data are time
        first.
        """
        return None

    @property
    def reports_steps(self) -> bool:
        """Whether `report` says anything."""
        return False

    #: Whether the gradient of a step reads how the step moves the state, which `read` then gives.
    reads_step: ClassVar[bool] = False

    def read(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        """What the gradient of the step that `local` describes reads of the traces before it."""
        return before

    @property
    def longest_window(self) -> int | None:
        """The most steps that may be done at once; None for any number."""
        return None

    def useful_window(self, graph: CellGraph) -> int:
        """The number of steps beyond which a window is not faster."""
        return max(_USEFUL_WINDOW, _stored_for_each(graph))


class TraceCarrier(Carrier):
    """Traces that move over a whole window at once, by the sensitivities over its steps.

    >>> from braintrace import rules
    >>> issubclass(rules.StepTrace, rules.TraceCarrier)  # the plain one, by one method
    True
    """

    @abc.abstractmethod
    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        """With `now`, the gradient of the step after the traces' time is added."""

    def gradients(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[Array]:
        return self.contract(graph, before, signals.entry, signals)

    def advance_and_contract(
        self, graph: CellGraph, before: Traces, local: Sensitivity, signals: Cotangents, sums: Sums
    ) -> tuple[Traces, Sums]:
        """`advance`, and `sums` (by weight) with what `contract` gives for the traces before it.

        The derivatives with respect to each y, of a single step, are for the sites that `adds_now`
        names.
        """
        one, sums = jax.tree.map(lambda v: v[None], (before, signals[0])), dict(sums)
        for site, gradient in zip(graph.sites, self.contract(graph, *one), strict=True):
            sums[site.weight] = sums[site.weight] + gradient.astype(sums[site.weight].dtype)
        return self.advance(graph, before, local), sums

    def adds_now(self, graph: CellGraph, site: Site) -> bool:
        """Whether `advance_and_contract` adds the site's own gradient of a single step as well."""
        return False

    def moves_in_place(self, graph: CellGraph, site: Site) -> bool:
        """Whether sequences move the traces of `site` without a second array of their size."""
        return False

    def working_bytes(self, graph: CellGraph, steps: int) -> int:
        """What it takes beside the traces to move them over `steps` steps at once."""
        return 0


class FactorCarrier(Carrier):
    """Traces whose gradient of each step is the operation's own weight gradient at two factors, of
    which one is made from leaky sums of each site's data: these are here.

    >>> import dataclasses, jax.numpy as jnp
    >>> from braintrace import checks, rules
    >>> @dataclasses.dataclass(frozen=True)
    ... class Recent(rules.FactorCarrier):  # recent inputs meet the signal of the moment
    ...     approximation = "a fixed filter stands for the neuron's dynamics"
    ...     dtype = None
    ...     def decays(self, graph, site):
    ...         return (0.5 if site.places else 0.0,)
    ...     def factors(self, graph, before, after, signals):
    ...         return [(sums[-1], drive) for sums, drive in zip(after, signals.drives)]
    ...     def contract(self, graph, traces, entry):  # no signal of an earlier state
    ...         return [jnp.zeros(site.weight.shape) for site in graph.sites]
    >>> @dataclasses.dataclass(frozen=True)
    ... class OfRecent(rules.Algorithm):
    ...     name = "OfRecent"
    ...     def parts(self):
    ...         return rules.Rule("recent", Recent())
    >>> checks.check_rule(OfRecent, ["leaky"], laws=["bytes", "certificate"]).ok
    True
    """

    dtype: DTypeLike | None

    @property
    def pairs(self) -> int:
        """How many pairs of factors a step may have for a site."""
        return 1

    @abc.abstractmethod
    def decays(self, graph: CellGraph, site: Site) -> tuple[float, ...]:
        """Of a leaky sum of the site's data, of a leaky sum of that, and so on."""

    def warnings(self, graph: CellGraph, site: Site) -> list[str]:
        """The slope of one step meets data of others: that of a normalisation differs most."""
        return [
            f"a normalisation ({short(e.source)}) lies between it and its state: where its input "
            "is silent, its slope is 1 / sqrt(epsilon), and meets the inputs of other steps; "
            "choose 'd_rtrl', an epsilon near the variance, or normalise what the weight reads"
            for e in normalisations(graph, site)
        ]

    def zeros(self, graph: CellGraph) -> PyTree:
        zero = lambda site: of_data(graph, site, trace_dtype(site, self.dtype))
        return [[zero(site) for _ in self.decays(graph, site)] for site in graph.sites]

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        after = []
        for site, sums, data in zip(graph.sites, before, local.data, strict=True):
            x, new = represented(site, [d[0] for d in data], wide(sums[0].dtype)), []
            for old, decay in zip(sums, self.decays(graph, site), strict=True):
                x = leaky_step(old, x, decay).astype(old.dtype)
                new.append(x)
            after.append(new)
        return after

    @abc.abstractmethod
    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        """For each site, represented data and a cotangent of y whose weight gradient is that of
        the step; or several of both, in front, whose sum is.
        """

    def sum_gain(self, graph: CellGraph, site: Site) -> float | None:
        """What the cotangent of a site is multiplied with where its data's one leaky sum is the
        other factor; None where another value may be.
        """
        return None

    def sums(self, traces: Traces, site: int) -> list[Array]:
        """The leaky sums of a site's data."""
        return traces[site]

    def axes(self, graph: CellGraph) -> Traces:
        """Where the samples lie in the traces, as the front of their tree."""
        return [graph.data_axis(site) for site in graph.sites]

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        clear = lambda axis, of: jax.tree.map(lambda v: cleared(axis, v, marks), of)
        return jax.tree.map(clear, self.axes(graph), traces, is_leaf=lambda axis: axis is None)

    def gradients(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[Array]:
        factors = jax.vmap(functools.partial(self.factors, graph))(before, after, signals)
        return [summed(s, *pair) for s, pair in zip(graph.sites, factors, strict=True)]

    def useful_window(self, graph: CellGraph) -> int:
        """Factors gain nothing from longer windows but their one product, which is at its speed by
        then: 16 steps, 8 where weights are small, 64 of a single sample.
        """
        largest = max((site.weight.size for site in graph.sites), default=0)
        least = _USEFUL_WINDOW // (4 if largest > _SMALL_WEIGHT else 8)
        steps = max(least, _USEFUL_WINDOW // (graph.batch_size or 1))
        return max(steps, _stored_for_each(graph))


def _stored_for_each(graph: CellGraph) -> int:
    """How many stored elements a sparse weight has for each element of y: to go through all of them
    once in a window costs no more than its steps then.
    """
    sparse = [site for site in graph.sites if site.rule.counts_events]
    return max((site.weight.size // max(site.y.size, 1) for site in sparse), default=0)


def trace_dtype(site: Site, chosen: DTypeLike | None) -> np.dtype:
    """dtype of a site's traces: the chosen one, or that of y; by default at least float32."""
    own = wide(site.y.dtype)
    if chosen is None:
        return own
    return np.result_type(chosen, np.complex64) if own.kind == "c" else np.dtype(chosen)


def represented(site: Site, data: Values, dtype: DTypeLike) -> Array:
    """The site's data as numbers that can be filtered."""
    return site.rule.represent(list(data)).astype(dtype)


def summed(site: Site, x: Array, c: Array) -> Array:
    """The weight gradient of pairs of factors, summed over all axes in front."""
    flat = lambda v, shape: v.reshape(-1, *shape)
    return site.rule.weight_gradient_sum(flat(x, represented_shape(site)), flat(c, site.y.shape))


def represented_shape(site: Site) -> tuple[int, ...]:
    """Shape of the represented data of one step."""
    data = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in site.data]
    return jax.eval_shape(site.rule.represent, data).shape


def of_data(graph: CellGraph, site: Site, dtype: DTypeLike) -> Any:
    """Zeros shaped as the represented data of a site."""
    return zeros(represented_shape(site), dtype, axes_of_data(graph, site))


def along(
    values: Inexact[Array, " B"] | Inexact[Array, ""], axis: BatchAxis | None, ndim: int
) -> Array:
    """Values given for each sample, shaped to multiply an array whose samples lie along `axis`."""
    if values.ndim == 0 or axis is None:
        return values.reshape(-1)[0]
    return axis.along(values, ndim)
