"""A trace of one's own by one method: what a step does to it."""

import abc
from collections.abc import Sequence
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Inexact, PyTree

from .._errors import UsageError
from .._precision import wide
from ..analysis import CellGraph, Place, Site
from ..kernels import met
from ..step import Values
from ._carrier import StepSignals, TraceCarrier, Traces, trace_dtype
from ._per_sample import step_gradient
from ._sensitivity import Sensitivity
from ._slots import cleared, signals_at
from ._zeros import of_entries


class StepTrace(TraceCarrier):
    """A trace of one's own, moved step by step: `moved` is the one method to write.

    For each weight the trace E holds an array for each of the S state variables of the neurons that
    it acts on, one entry for each sample and weight: (S, samples, inputs, outputs) for a plain
    product `x @ W`. With D the derivative of a neuron's new state by its old one, and f that by its
    drive y, `moved` is given what D-RTRL would add up to its trace,

        carried = D E_{t-1}        added = f x_t

    and gives E_t. The gradient of a step is the step's own beside what the trace has of those
    before,

        dL_t/dW = dL_t/dy_t x_t  +  sum_s (dL_t/dh_{t-1})_s E_{t-1, s}

    so that a rule may change how its trace forgets, and edits (`rules.Modulator`,
    `rules.ScalarLeak`, one of your own) what signal it meets and what D is.

    Memory: S numbers for each sample and weight. Time: O(S^2) for each of these at a step. Steps
        are done one by one: a window of several would need `moved` in closed form.

    Attributes:
        approximation: in a few words, what the trace leaves out or changes: a reason in the
            certificate. Without one the parameters are certified as those of D-RTRL.
        dtype: of the traces; None for that of y, at least float32. Beside it, a subclass is a
            frozen dataclass of what it needs.

    >>> import dataclasses
    >>> import jax.numpy as jnp
    >>> from braintrace import checks, rules
    >>> @dataclasses.dataclass(frozen=True)
    ... class Fading(rules.StepTrace):
    ...     approximation = "its traces fade"
    ...     fade: float = 0.9
    ...     def moved(self, old, carried, added):
    ...         return self.fade * carried + added
    >>> @dataclasses.dataclass(frozen=True)
    ... class Faded(rules.Algorithm):
    ...     name = "Faded"
    ...     def parts(self):
    ...         return rules.Rule("faded", Fading())
    >>> checks.check_rule(Faded, ["leaky"], laws=["bytes", "certificate"]).ok
    True
    """

    approximation: ClassVar[str] = ""
    dtype: DTypeLike | None = None

    @abc.abstractmethod
    def moved(
        self,
        old: Inexact[Array, "S ..."],
        carried: Inexact[Array, "S ..."],
        added: Inexact[Array, "S ..."],
    ) -> Inexact[Array, "S ..."]:
        """The trace of a weight after a step, from that before it and what the step does.

        All have one shape. A sample that is reset before the step has zeros in `old` and `carried`.
        """

    @property
    def longest_window(self) -> int | None:
        return 1

    def zeros(self, graph: CellGraph) -> PyTree:
        """For each site and place, (S, *trace_shape)."""
        zero = lambda site, place: of_entries(
            graph, site, trace_dtype(site, self.dtype), len(place.slots)
        )
        return [[zero(site, place) for place in site.places] for site in graph.sites]

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        return [
            [
                self._moved(graph, n, place, old, local) if place.slots else old
                for place, old in zip(site.places, before[n], strict=True)
            ]
            for n, site in enumerate(graph.sites)
        ]

    def _moved(
        self, graph: CellGraph, n: int, place: Place, old: Array, local: Sensitivity
    ) -> Array:
        rule, zero = graph.sites[n].rule, jnp.zeros_like(old[0])
        real, data = jnp.finfo(old.dtype).dtype, [d[0] for d in local.data[n]]
        rows, drives = local.at(graph, n, place)

        def carried(row: Sequence[Array | None]) -> Array:
            pairs = zip(row, old, strict=True)
            terms = [met(rule.at_entries(d.astype(real)), e) for d, e in pairs if d is not None]
            return sum(terms, zero)

        own = lambda f: zero if f is None else rule.spread(f[0], data).astype(old.dtype)
        given = jnp.stack(list(map(carried, rows))), jnp.stack(list(map(own, drives)))
        new = self.moved(old, *given)
        if jnp.shape(new) != old.shape:
            raise UsageError(
                f"{type(self).__name__}.moved changes the shape of the trace.",
                got=f"an array of shape {jnp.shape(new)}",
                expected=f"shape {old.shape}, as `old`, `carried` and `added` have it",
            )
        return new.astype(old.dtype)

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        def clear(site: Site, trace: Array) -> Array:
            kept = cleared(graph.y_axis(site), jnp.ones(site.y.shape, bool), marks)
            return jnp.where(site.rule.at_entries(kept), trace, 0)

        pairs = zip(graph.sites, traces, strict=True)
        return [[clear(site, trace) for trace in of] for site, of in pairs]

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        found = []
        for n, (site, of) in enumerate(zip(graph.sites, traces, strict=True)):
            total = jnp.zeros(site.weight.shape, wide(site.weight.dtype))
            signals = jax.vmap(lambda e, site=site: signals_at(graph, e, site))(entry)
            for signal, trace in zip(signals, of, strict=True):
                if signal:
                    by_slot = [trace[:, s] for s in range(trace.shape[1])]
                    met_now = site.rule.contract(signal, by_slot)
                    total = total + met_now.astype(total.dtype)
            if now is not None:
                own = step_gradient(site, now.data[n], now.drives[n])
                total = total + own.astype(total.dtype)
            found.append(total)
        return found
