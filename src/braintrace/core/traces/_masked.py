"""The carrier of dynamics of which some elements are left out, step by step.

    J <- D' J + I          gradient of a step = sum over samples of  d (D' J)  +  the step's own

with D the derivative of the new state by the old one, D' what is kept of it, and d the derivative
of the step's loss by the new state. For d to meet what is left out, too, it is taken at the
outlets of the step: D has a row for each of their elements behind those of the state.
"""

import abc
import dataclasses
from typing import ClassVar, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ..analysis import (
    CellGraph,
    Exactness,
    ParameterRow,
    Structure,
    structure_of,
    with_layers,
    with_outlets,
)
from ..step import Values
from ._carrier import Cotangents, StepSignals, Sums, Traces, trace_dtype
from ._per_parameter import PerParameter
from ._sensitivity import Sensitivity, every_drive, flat_layer, layer_signal
from ._slots import of_samples
from ._within_layer import EXACT, WithinLayer, contracted_whole, driven, mix
from ._zeros import Zeros, of_part

Rows = Float[Array, "B N n"]


class Moving(NamedTuple):
    """Traces, and the rows that the next step moves them by."""

    traces: Traces
    rows: Rows


@dataclasses.dataclass(frozen=True)
class Masked(WithinLayer, abc.ABC):
    """`dtype`: of the traces; by default that of y, at least float32."""

    reads_step: ClassVar[bool] = True

    @property
    def longest_window(self) -> int | None:
        return 1  # what is left out is left out at each step

    def arrange(self, graph: CellGraph) -> CellGraph:
        graph = with_layers(graph, together=True)
        graph = dataclasses.replace(graph, moves=structure_of(graph))
        lost = [not site.places and self.leaves_out(graph, n) for n, site in enumerate(graph.sites)]
        rows = [
            self._approximate(row) if any(lost[n] for n in row.sites) else row
            for row in graph.parameters
        ]
        return with_outlets(dataclasses.replace(graph, parameters=tuple(rows)))

    def _approximate(self, row: ParameterRow) -> ParameterRow:
        if row.exactness is not Exactness.EXACT:
            return row
        return dataclasses.replace(row, exactness=Exactness.APPROXIMATE, reason=self.reason)

    #: Why a parameter of which something is left out is not exact.
    reason: ClassVar[str]

    @abc.abstractmethod
    def leaves_out(self, graph: CellGraph, n: int) -> bool:
        """Whether anything that a loss sees is left out of the traces of site n."""

    @abc.abstractmethod
    def kept(self, graph: CellGraph, rows: Rows) -> Rows:
        """D', for every weight."""

    def zeros(self, graph: CellGraph) -> PyTree:
        zeros = lambda n: {} if graph.sites[n].places else {0: self.zeros_of(graph, n)}
        own = PerParameter.zeros(self, graph)
        return [(zeros(n), of) for n, of in enumerate(own)]

    def zeros_of(self, graph: CellGraph, n: int) -> Zeros:
        """Zero traces of a site."""
        return whole_zeros(graph, n, self.dtype)

    def moved(
        self, graph: CellGraph, n: int, trace: Array, data: list[Array], step: "StepRows"
    ) -> Array:
        """The trace of site n after a step."""
        return moved_whole(graph, n, trace, data, step)

    def contracted(self, graph: CellGraph, n: int, trace: Array, rows: Rows, d: Array) -> Array:
        """What d, (B, outlets), stands for, for the weight of each sample."""
        reads = rows[:, moves_of(graph).size :]
        return contracted_whole(trace, jnp.einsum("bo,bon->bn", d, reads, precision=EXACT))

    def read(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        return Moving(before, step_rows(graph, local, self).rows)

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        own = PerParameter.advance(self, graph, [of for _, of in before], local)
        if not any(whole for whole, _ in before):
            return [({}, of) for of in own]
        step = step_rows(graph, local, self)
        return list(zip(self._moved(graph, before, local, step), own, strict=True))

    def _moved(
        self, graph: CellGraph, before: Traces, local: Sensitivity, step: "StepRows"
    ) -> list[dict[int, Array]]:
        return [
            {k: self.moved(graph, n, trace, local.data[n], step) for k, trace in whole.items()}
            for n, (whole, _) in enumerate(before)
        ]

    def advance_and_contract(
        self, graph: CellGraph, before: Traces, local: Sensitivity, signals: Cotangents, sums: Sums
    ) -> tuple[Traces, Sums]:
        neurons = [of for _, of in before]
        own, sums = PerParameter.advance_and_contract(self, graph, neurons, local, signals, sums)
        entry, _ = signals
        step = step_rows(graph, local, self)
        for n, gradient in self._gradients(graph, Moving(before, step.rows), entry):
            weight = graph.sites[n].weight
            sums[weight] = sums[weight] + gradient.astype(sums[weight].dtype)
        return list(zip(self._moved(graph, before, local, step), own, strict=True)), sums

    def contract(
        self, graph: CellGraph, traces: Traces, entry: Values, now: StepSignals | None = None
    ) -> list[Array]:
        plain = traces.traces if isinstance(traces, Moving) else traces
        found = PerParameter.contract(self, graph, [of for _, of in plain], entry, now)
        each = jax.vmap(lambda traces, entry: dict(self._gradients(graph, traces, entry)))
        for n, gradient in each(traces, entry).items():
            found[n] = found[n] + gradient.sum(0)
        return found

    def _gradients(
        self, graph: CellGraph, traces: Traces, entry: Values
    ) -> list[tuple[int, Array]]:
        size = moves_of(graph).size
        if isinstance(traces, Moving):
            signal, (plain, rows) = flat_layer(graph, 0, entry)[:, size:], traces
        else:  # the state itself, as it is: outlets that are the state's elements
            signal, plain = layer_signal(graph, 0, entry)[:, :size], traces
            rows = None
        return [
            (n, of_samples(graph, graph.sites[n], self._met(graph, n, whole[0], rows, signal)))
            for n, (whole, _) in enumerate(plain)
            if whole
        ]

    def _met(
        self, graph: CellGraph, n: int, trace: Array, rows: Rows | None, signal: Array
    ) -> Array:
        if rows is None:
            return self.at_entry(graph, n, trace, signal)
        return self.contracted(graph, n, trace, rows, signal)

    def at_entry(self, graph: CellGraph, n: int, trace: Array, signal: Array) -> Array:
        """What a derivative with respect to the state that the traces are of stands for."""
        return contracted_whole(trace, signal)


class StepRows(NamedTuple):
    """What a step does: D' (B, N, n), and for each site the derivatives with respect to its y, (N,
    1, *shape of y); of one that the samples share, (N, B, 1, ...).
    """

    rows: Rows
    drives: list[Array]


def moves_of(graph: CellGraph) -> Structure:
    assert graph.moves is not None
    return graph.moves


def step_rows(graph: CellGraph, local: Sensitivity, carrier: Masked) -> StepRows:
    """By a reverse pass for each element."""
    assert local.layers is not None
    [layer], moves = local.layers, moves_of(graph)
    rows, drives = layer.of(jnp.arange(len(moves.state)))
    rows = jnp.swapaxes(rows, 0, 1)[..., : moves.size]
    return StepRows(carrier.kept(graph, rows), cast("list[Array]", every_drive(graph, drives)))


def whole_zeros(graph: CellGraph, n: int, dtype: object) -> Zeros:
    """Traces of a site on all the state."""
    site = graph.sites[n]
    own = trace_dtype(site, cast("np.dtype", dtype))
    return of_part(graph, site, own, moves_of(graph).size)


def moved_whole(graph: CellGraph, n: int, trace: Array, data: list[Array], step: StepRows) -> Array:
    """A trace on all the state after a step."""
    size, site = moves_of(graph).size, graph.sites[n]
    mixed, _ = mix(trace, step.rows[:, :size], jnp.zeros(trace.shape[:2], step.rows.dtype))
    return driven(graph, site, mixed, data, step.drives[n][:size], 0)
