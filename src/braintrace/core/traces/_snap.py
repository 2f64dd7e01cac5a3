"""The carrier of SnAp-n: the influence that a parameter has within n steps."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..analysis import CellGraph, Site
from ..kernels import met
from ._carrier import trace_dtype
from ._masked import Masked, Rows, StepRows, moved_whole, moves_of, whole_zeros
from ._pairs import Pairs, pairs_of
from ._sensitivity import shared_sites
from ._slots import part_shape
from ._zeros import Zeros, of_samples_alone


@dataclasses.dataclass(frozen=True)
class WithinSteps(Masked):
    """`J <- S (D J + I)`, S the pairs of a state element and a weight element that `steps` steps
    can connect. A trace is a number for each of them.

    Memory B |S|; time B |S| times the elements that move one, and a reverse pass for each element.
    """

    reason: ClassVar[str] = "what takes more steps than the traces follow is left out"

    steps: int = 1

    def kept(self, graph: CellGraph, rows: Rows) -> Rows:
        return rows  # what is left out depends on the weight

    def leaves_out(self, graph: CellGraph, n: int) -> bool:
        pairs = self.pairs(graph, n)
        return pairs is not None and pairs.leaves_out

    def pairs(self, graph: CellGraph, n: int) -> Pairs | None:
        """The pairs of a site; None for all."""
        known = moves_of(graph).known
        if (n, self.steps) not in known:
            known[n, self.steps] = pairs_of(graph, n, self.steps)
        return known[n, self.steps]

    def warnings(self, graph: CellGraph, site: Site) -> list[str]:
        n = graph.sites.index(site)
        if site.places or self.pairs(graph, n) is not None:
            return []
        return [
            f"it reaches all the state within {self.steps} step{'s' * (self.steps > 1)}, or where "
            "its elements act is not known: its traces are those of 'rtrl', as large and as slow"
        ]

    def zeros_of(self, graph: CellGraph, n: int) -> Zeros:
        if (pairs := self.pairs(graph, n)) is None:
            return whole_zeros(graph, n, self.dtype)
        dtype = trace_dtype(graph.sites[n], self.dtype)
        return of_samples_alone(graph, dtype, len(pairs.state))

    def moved(
        self, graph: CellGraph, n: int, trace: Array, data: list[Array], step: StepRows
    ) -> Array:
        pairs, site, size = self.pairs(graph, n), graph.sites[n], moves_of(graph).size
        if pairs is None:
            return moved_whole(graph, n, trace, data, step)
        to, by, of = pairs.hops
        rows = step.rows[:, :size].reshape(graph.samples, -1).astype(trace.dtype)
        new = jnp.zeros_like(trace).at[:, to].add(met(rows[:, by], trace[:, of]))
        to, by, of = pairs.drives
        drive = step.drives[n][:size].astype(trace.dtype)
        if shared_sites(graph)[n]:  # (n, B, 1, *y)
            drive = jnp.moveaxis(drive[:, :, 0].reshape(size, graph.samples, -1), 1, 0)
        elif (axis := graph.y_axis(site)) is None:
            drive = drive.reshape(1, size, -1)
        else:
            apart = axis.apart(drive[:, 0], 1)
            drive = jnp.moveaxis(apart.reshape(size, graph.samples, -1), 1, 0)
        ones = jnp.ones(site.y.shape, trace.dtype)
        met_data = site.rule.spread(ones, [d[0] for d in data]).reshape(-1)[pairs.entries]
        flat = drive.reshape(len(drive), -1)
        return new.at[:, to].add(flat[:, by] * met_data[:, of])

    def contracted(self, graph: CellGraph, n: int, trace: Array, rows: Rows, d: Array) -> Array:
        if (pairs := self.pairs(graph, n)) is None:
            return super().contracted(graph, n, trace, rows, d)
        by, of = pairs.reads
        read = d[:, :, None] * rows[:, moves_of(graph).size :]
        terms = met(read.reshape(len(d), -1)[:, by].astype(trace.dtype), trace[:, of])
        return self._of_weights(graph, n, pairs.weight[of], terms)

    def at_entry(self, graph: CellGraph, n: int, trace: Array, signal: Array) -> Array:
        if (pairs := self.pairs(graph, n)) is None:
            return super().at_entry(graph, n, trace, signal)
        terms = met(signal[:, pairs.state].astype(trace.dtype), trace)
        return self._of_weights(graph, n, pairs.weight, terms)

    def _of_weights(self, graph: CellGraph, n: int, weight: np.ndarray, terms: Array) -> Array:
        shape = part_shape(graph, graph.sites[n])
        zero = jnp.zeros((graph.samples, math.prod(shape)), terms.dtype)
        return zero.at[:, weight].add(terms).reshape(-1, *shape)
