"""The exact traces of neurons whose dynamics are two numbers, as a filtered input.

Where at every step D = leak and f = gain, the same two constants for all neurons of a site,

    C <- D C + f (x)  is  C = gain * ex        with        ex <- leak ex + x,

and if y and the old state meet the rest of the step in the new state alone, dL_t/dh_{t-1} is
leak / gain times delta = dL_t/dy_t, so that

    gradient of W = weight gradient of the operation at ex and delta.

Memory O(B I) in place of O(B I O). That all of this holds is read from the program of the step and
of its derivatives: `constant_dynamics`.
"""

import dataclasses
from collections.abc import Callable
from itertools import chain

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, DTypeLike

from ..analysis import CellGraph, Site, depends, reach
from ..jaxpr import Const, Var, evaluate, inline, reader
from ..step import Values
from ._carrier import Carrier, FactorCarrier, StepSignals, Traces, trace_dtype
from ._per_parameter import PerParameter
from ._sensitivity import sensitivity
from ._slots import signals_at


@dataclasses.dataclass(frozen=True)
class FilteredInput(FactorCarrier):
    """`leaks` and `gains` are of the sites, by number; zero where a site has no trace."""

    leaks: tuple[float, ...]
    gains: tuple[float, ...]
    dtype: DTypeLike | None = None

    def decays(self, graph: CellGraph, site: Site) -> tuple[float, ...]:
        return (self.leaks[graph.sites.index(site)],)

    def contract(self, graph: CellGraph, traces: Traces, entry: Values) -> list[Array]:
        def cotangents(entry: Values) -> list[Array]:
            found = []
            for site, gain in zip(graph.sites, self.gains, strict=True):
                signals = chain(*signals_at(graph, entry, site))
                zero = jnp.zeros(site.y.shape, trace_dtype(site, self.dtype))
                found.append(gain * sum(signals, zero))
            return found

        every = zip(graph.sites, traces, jax.vmap(cotangents)(entry), strict=True)
        return [site.rule.weight_gradient_sum(x, c) for site, (x,), c in every]

    def factors(
        self, graph: CellGraph, before: Traces, after: Traces, signals: StepSignals
    ) -> list[tuple[Array, Array]]:
        return [(x, drive) for (x,), drive in zip(after, signals.drives, strict=True)]


@dataclasses.dataclass(frozen=True)
class MayBeFiltered(PerParameter):
    """`FilteredInput` where that is proven, else `PerParameter`."""

    def resolve(self, graph: CellGraph, leak_of: Callable[[int], float]) -> Carrier:
        if (found := constant_dynamics(graph)) is None:
            return PerParameter(self.dtype, self.clip)
        return FilteredInput(*found, self.dtype)


def constant_dynamics(graph: CellGraph) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The leak and the gain of every site; None where a site's trace is not a filtered input."""
    traced = [n for n, site in enumerate(graph.sites) if site.places]
    if not traced or not all(_meets_in_one_state(graph, graph.sites[n]) for n in traced):
        return None
    numbers = _constants(graph, traced)
    if any(v is None or np.size(v) == 0 or (v != v.flat[0]).any() for v in numbers):
        return None
    values = [float(v.flat[0]) for v in numbers if v is not None]
    leaks, gains = [0.0] * len(graph.sites), [0.0] * len(graph.sites)
    for k, n in enumerate(traced):
        leaks[n], gains[n] = values[2 * k : 2 * k + 2]
    return tuple(leaks), tuple(gains)


def _meets_in_one_state(graph: CellGraph, site: Site) -> bool:
    """Whether a weight operation moves the only slot of one group, all of it and in order, with
    samples apart; and what it gives, and the old state, are read in the new state alone.
    """
    if not site.is_operation or len(site.places) != 1:
        return False
    [place] = site.places
    apart = None not in (graph.y_axis(site), graph.data_axis(site))
    if len(place.slots) != 1 or place.positions is not None or not (apart or graph.samples == 1):
        return False
    slot = graph.groups[place.group].slots[place.slots[0]]
    new = graph.new_carry[slot.leaf]
    if not slot.in_order or not isinstance(new, Var):
        return False
    after = {(e, k) for e in graph.step for k, v in enumerate(e.inputs) if v is new}
    reached = reach(graph.step, [site.y, graph.carry[slot.leaf]], after)
    return {v for v in (*graph.outs, *graph.new_carry) if v in reached} == {new}


def _constants(graph: CellGraph, sites: list[int]) -> list[np.ndarray | None]:
    """D and f at one step, of each site; None for what depends on a value."""

    def moves(*given: list[Array]) -> list[Array]:
        ready, carry, xs = given
        local, found = sensitivity(graph, ready, carry, [x[None] for x in xs]), []
        for n in sites:
            [place] = graph.sites[n].places
            rows, drives = local.slots[place.group, place.slots[0]]
            leaf = graph.groups[place.group].slots[place.slots[0]].leaf
            found += [rows[graph.hidden.index(leaf)], drives[n]]
        return found

    given = (graph.prelude_results, graph.carry, graph.xs)
    shapes = [[jax.ShapeDtypeStruct(v.shape, v.dtype) for v in some] for some in given]
    program = inline(jax.make_jaxpr(moves)(*shapes), undifferentiated=True)
    varying, env = depends(program.equations, program.inputs), dict[Var, Array]()
    with jax.ensure_compile_time_eval():
        fixed = [e for e in program.equations if not varying & set(e.outputs)]
        evaluate(fixed, env)
        known = [isinstance(v, Const) or v not in varying for v in program.outputs]
        read = reader(env)
        pairs = zip(program.outputs, known, strict=True)
        return [np.asarray(read(v)) if constant else None for v, constant in pairs]
