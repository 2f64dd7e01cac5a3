"""The factors of a window, and its gradient out of them. Where one is a leaky sum of events, they
stand for it:

    ex_t = a ex_{t-1} + x_t             sum_t ex_t c_t = sum_t x_t g_t  +  a ex_0 g_1
                                        g_t = c_t + a g_{t+1}

A leaky sum is hardly ever zero, events nearly always are: where a product takes the time of what is
not zero, the filter goes to the other factor.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Num

from .._precision import wide
from ..analysis import CellGraph, Site
from ._carrier import FactorCarrier, StepSignals, Traces, represented, summed, trace_dtype
from ._filters import leaky_step
from ._slots import cleared

Pair = tuple[Num[Array, "..."], Num[Array, "..."]]  # represented data, a cotangent of y
Marks = Bool[Array, "T B"] | None  # the samples whose traces begin anew before a step


def _gain(graph: CellGraph, carrier: FactorCarrier, site: Site) -> float | None:
    """`sum_gain` where the data stand for their leaky sum: the product gains by it, and sums are
    not rounded.
    """
    exact = trace_dtype(site, carrier.dtype) == wide(site.y.dtype)
    return carrier.sum_gain(graph, site) if site.rule.counts_events and exact else None


def window_factors(
    graph: CellGraph, carrier: FactorCarrier, before: Traces, after: Traces, signals: StepSignals
) -> list[Pair]:
    """`carrier.factors` of one step, in the form that `window_gradients` takes."""
    found = []
    factors = carrier.factors(graph, before, after, signals)
    for site, data, (x, c) in zip(graph.sites, signals.data, factors, strict=True):
        if (gain := _gain(graph, carrier, site)) is not None:
            x = represented(site, data, wide(site.y.dtype))
            c = c if gain == 1 else gain * c
        found.append((x, c))
    return found


def window_gradients(
    graph: CellGraph, carrier: FactorCarrier, before: Traces, pairs: Sequence[Pair], marks: Marks
) -> list[Array]:
    """The gradient of each site: its pair of `window_factors` over a window, time first. `before`:
    the traces before it.
    """
    found = []
    for n, (site, pair) in enumerate(zip(graph.sites, pairs, strict=True)):
        if _gain(graph, carrier, site) is None:
            found.append(summed(site, *pair))
        else:
            (old,) = carrier.sums(before, n)
            found.append(_of_events(graph, site, old, carrier.decays(graph, site)[0], pair, marks))
    return found


def _of_events(
    graph: CellGraph, site: Site, old: Array, decay: float, pair: Pair, marks: Marks
) -> Array:
    x, c = pair
    along = lambda axis, values, marks: values if marks is None else cleared(axis, values, marks)

    def back(later: Array, at: tuple[Array, Bool[Array, " B"] | None]) -> tuple[Array, Array]:
        c, marks = at
        now = leaky_step(later, c, decay).astype(c.dtype)
        return along(graph.y_axis(site), now, marks), now

    _, filtered = jax.lax.scan(back, jnp.zeros_like(c[0]), (c, marks), reverse=True)
    kept = along(graph.data_axis(site), old, None if marks is None else marks[0])
    x = x.at[0].set(leaky_step(kept, x[0], decay).astype(x.dtype))
    return site.rule.weight_gradient_sum(x, filtered)
