"""The carrier of a few past steps, whose influence is that of a constant matrix: ModProp.

    kept: for each site the data x and the slopes f = dh/dy of the last S - 1 steps
    c_0 = dL_t/dh_t,    c_k = leak c_{k-1} + slope K c_{k-1}          k < S
    gradient of W = weight gradient of the operation, summed over (x_{t-k}, f_{t-k} c_k)

with K[p, j] how much of neuron p's activity reaches neuron j's drive: weights, or means of them,
which an edit puts into a leaf of the carry (`marks`). `entry` is dL_t/dh_t, where old states are
read through `sg` and h' leaks with 1 (`ScalarLeak`). Memory O(B S (I + O)) and O(n^2).
"""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, DTypeLike, Float, PyTree

from ..analysis import CellGraph, Site
from ..step import Values
from ._carrier import FactorCarrier, StepSignals, Traces, of_data, represented, trace_dtype
from ._presynaptic import leaks_of
from ._sensitivity import Sensitivity
from ._slots import cleared, signals_at
from ._zeros import of_y, zeros_of_extra

BETWEEN = "weights between neurons of group "  # with its number: the name of the mark


@dataclasses.dataclass(frozen=True)
class Taps(FactorCarrier):
    """`leaks` holds the leak of each state group, or one for all; None reads them from the model.
    `count` is S.
    """

    approximation: ClassVar[str] = "its influence is that of a few steps, with constant slopes"

    leaks: tuple[float, ...] | None
    slope: float
    count: int
    dtype: DTypeLike | None = None

    @property
    def pairs(self) -> int:
        return self.count

    def decays(self, graph: CellGraph, site: Site) -> tuple[float, ...]:
        return ()

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> "Taps":
        return dataclasses.replace(self, leaks=leaks_of(graph, self.leaks, leak_of))

    def zeros(self, graph: CellGraph) -> PyTree:
        leaves, first = zeros_of_extra(graph), len(graph.carry) - len(graph.extra)
        return {
            "sites": [self._zero(graph, site) for site in graph.sites],
            "between": {name: leaves[leaf - first] for name, leaf in _between(graph).items()},
        }

    def _zero(self, graph: CellGraph, site: Site) -> PyTree:
        dtype = trace_dtype(site, self.dtype)
        past = lambda zeros: [zeros] * (self.count - 1)
        slopes = [[past(of_y(graph, site, dtype)) for _ in p.slots] for p in site.places]
        return {"x": past(of_data(graph, site, dtype)), "f": slopes} if site.places else {}

    def of_site(self, traces: Traces, site: int) -> Traces:
        return traces["sites"][site]

    def advance(self, graph: CellGraph, before: Traces, local: Sensitivity) -> Traces:
        def pushed(new: Array, old: list[Array]) -> list[Array]:
            return [new, *old][: self.count - 1]

        after = []
        for n, (site, old) in enumerate(zip(graph.sites, before["sites"], strict=True)):
            if not site.places:
                after.append({})
                continue
            dtype = trace_dtype(site, self.dtype)
            x = represented(site, [d[0] for d in local.data[n]], dtype)
            slopes = [
                [
                    pushed(jnp.zeros(site.y.shape, dtype) if d is None else d[0].astype(dtype), f)
                    for f, d in zip(of_place, local.at(graph, n, place)[1], strict=True)
                ]
                for place, of_place in zip(site.places, old["f"], strict=True)
            ]
            after.append({"x": pushed(x, old["x"]), "f": slopes})
        between = {name: local.carry[leaf] for name, leaf in _between(graph).items()}
        return {"sites": after, "between": between}

    def reset(self, graph: CellGraph, traces: Traces, marks: Bool[Array, " B"]) -> Traces:
        def clear(site: Site, of: Traces) -> Traces:
            axes = {"x": graph.data_axis(site), "f": graph.y_axis(site)}
            each = lambda axis, values: jax.tree.map(lambda v: cleared(axis, v, marks), values)
            return {name: each(axes[name], values) for name, values in of.items()}

        every = zip(graph.sites, traces["sites"], strict=True)
        return {**traces, "sites": [clear(*pair) for pair in every]}

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        return [jnp.zeros(s.weight.shape, s.weight.dtype) for s in graph.sites]

    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        """What `entry` stands for reaches the past alone: the step's own is in the drives."""
        signal, back = list(signals.entry), []
        for _ in range(self.count - 1):
            signal = self._back(graph, after["between"], signal)
            back.append(signal)
        every = zip(graph.sites, before["sites"], signals.drives, signals.data, strict=True)
        found = []
        for site, past, drive, data in every:
            x, cotangents = [represented(site, data, drive.dtype)], [drive]
            if past:
                x += [v.astype(drive.dtype) for v in past["x"]]
                for k, signal in enumerate(back):
                    met = zip(signals_at(graph, signal, site), past["f"], strict=True)
                    pairs = [pair for of_place in met for pair in zip(*of_place, strict=True)]
                    terms = [c * f[k].astype(drive.dtype) for c, f in pairs]
                    cotangents.append(sum(terms[1:], terms[0]))
            found.append((jnp.stack(x), jnp.stack(cotangents)))
        return found

    def _back(
        self, graph: CellGraph, between: dict[str, Float[Array, "n n"]], signal: Values
    ) -> list[Array]:
        """The signal one step further back."""
        assert self.leaks is not None
        found = [jnp.zeros_like(v) for v in signal]
        for g, group in enumerate(graph.groups):
            leak = self.leaks[g if len(self.leaks) > 1 else 0]
            for slot in group.slots:
                number = graph.hidden.index(slot.leaf)
                c = graph.apart(slot.leaf, signal[number])
                moved = leak * c
                if (k := between.get(f"{BETWEEN}{g}")) is not None:
                    moved = moved + self.slope * (c @ k.T.astype(c.dtype))
                found[number] = graph.together(slot.leaf, moved)
        return found


def _between(graph: CellGraph) -> dict[str, int]:
    """The leaves of the carry that hold the weights between neurons, by the name of the mark."""
    marked = {name: of for name, of in graph.marks.items() if name.startswith(BETWEEN)}
    return {name: next(iter(of)) for name, of in marked.items()}
