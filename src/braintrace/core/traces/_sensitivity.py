"""How the hidden state at the end of some steps depends, position by position, on the state before
them and on each y.

For steps 1..K of the local evaluation and a slot s, one reverse pass with ones on that slot gives,
exactly,

    rows[q]  = (D_K ... D_1)[s, q]                for every position
    drive_t  = (D_K ... D_{t+1} f_t)[s]           for every site, shaped as its y, t = 1..K

because each old state and each element of y influences one position only. With K = 1 these are D
and f.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from ..analysis import CellGraph
from ..step import Perturbations, Step, Values, calls_back, hidden_part, step, with_hidden
from ._layer_slots import LayerSensitivity, Pull
from ._slots import one_slot

Carried = TypeVar("Carried")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SlotSensitivity:
    """`rows`: shaped as the hidden leaves; `drive[n]`: (K, *shape of y of site n)."""

    rows: list[Array]
    drive: list[Array]


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """For each group and slot (None where no site needs it); `data[n]`: operands of site n, time
    first; the end carry.
    """

    slots: list[list[SlotSensitivity | None]]
    data: list[list[Array]]
    carry: list[Array]
    layers: list[LayerSensitivity] | None = None  # for algorithms that are exact within a layer


def zero_perturbations(graph: CellGraph, steps: int | None = None) -> list[Array | None]:
    """A zero for each site's y (with `steps`, time first); None where another site's serves
    (`every_drive`).
    """
    lead = () if steps is None else (steps,)
    numbered = zip(graph.first_of_sum, graph.sites, strict=True)
    return [
        jnp.zeros((*lead, *s.y.shape), s.y.dtype) if first == n else None
        for n, (first, s) in enumerate(numbered)
    ]


def every_drive(graph: CellGraph, drives: Perturbations) -> list[Array]:
    """The derivatives with respect to the perturbations, for each site."""
    return [cast("Array", drives[first]) for first in graph.first_of_sum]


def sensitivity_bytes(graph: CellGraph) -> int:
    """Bytes of D and f for one step: an entry for each pair of coupled slots, and one for each slot
    that a site feeds.
    """
    coupled = sum(
        int(g.coupling.sum()) * g.positions * graph.carry[g.slots[0].leaf].dtype.itemsize
        for g in graph.groups
    )
    firsts = [graph.sites[n] for n in sorted(set(graph.first_of_sum))]
    return coupled + sum(
        s.y.size * s.y.dtype.itemsize * sum(len(p.slots) for p in s.places) for s in firsts
    )


def sensitivity(
    graph: CellGraph,
    ready: Values,
    carry: Values,
    xs: Sequence[Array | None],
    evaluate: Callable[..., Step] = step,
) -> Sensitivity:
    """Sensitivities over the steps of `xs` (time first)."""

    def end(hidden: list[Array], perturbations: list[Array | None]) -> tuple[list[Array], PyTree]:
        start = with_hidden(graph, carry, hidden)
        last, data = local_chain(graph, ready, start, xs, perturbations, evaluate)
        return hidden_part(graph, last), (data, last)

    start = hidden_part(graph, carry), zero_perturbations(graph, jax.tree.leaves(xs)[0].shape[0])
    out, pull, (data, last) = jax.vjp(end, *start, has_aux=True)
    return pulled_back(graph, out, pull, data, last)


def pulled_back(
    graph: CellGraph, out: Values, pull: Pull, data: list[list[Array]], last: list[Array]
) -> Sensitivity:
    """The sensitivities of the hidden leaves `out` of the local evaluation, by reverse passes
    through steps that are evaluated already.

    `pull` takes cotangents of `out` to (those of the hidden state before the steps, those of the
    perturbations).
    """
    layers = graph.layers and [
        LayerSensitivity(graph, k, out, pull) for k in range(len(graph.layers.layers))
    ]
    needed = sorted({(p.group, s) for site in graph.sites for p in site.places for s in p.slots})
    slots: list[list[SlotSensitivity | None]] = [
        [None] * len(group.slots) for group in graph.groups
    ]
    ends = [one_slot(graph, out, graph.groups[g].slots[s]) for g, s in needed]
    if len(ends) == 1 or any(
        map(calls_back, graph.step)
    ):  # a call back to Python may not know how to be mapped
        found = [pull(end) for end in ends]
    else:  # one pass for all slots: what it recomputes is recomputed once
        together = jax.vmap(pull)(jax.tree.map(lambda *v: jnp.stack(v), *ends)) if ends else None
        found = [jax.tree.map(lambda v, k=k: v[k], together) for k in range(len(ends))]
    for (g, s), (rows, drives) in zip(needed, found, strict=True):
        slots[g][s] = SlotSensitivity(rows, every_drive(graph, drives))
    return Sensitivity(slots, data, last, layers)


def local_chain(
    graph: CellGraph,
    ready: Values,
    carry: list[Array],
    xs: Sequence[Array | None],
    perturbations: Perturbations,
    evaluate: Callable[..., Step] = step,
) -> tuple[list[Array], list[list[Array]]]:
    """Steps of the local evaluation: the end carry, and the data of each site, time first."""

    def advance(carry: list[Array], now: tuple[list[Array], Perturbations]) -> PyTree:
        result = evaluate(graph, ready, carry, *now)
        return result.local, result.data

    return scan(advance, carry, (xs, perturbations))


def scan(
    body: Callable[[Carried, PyTree], tuple[Carried, PyTree]], carry: Carried, steps: PyTree
) -> tuple[Carried, PyTree]:
    """`lax.scan`, without a loop when there is one step."""
    if jax.tree.leaves(steps)[0].shape[0] > 1:
        return jax.lax.scan(body, carry, steps)
    carry, result = body(carry, jax.tree.map(lambda v: v[0], steps))
    return carry, jax.tree.map(lambda v: v[None], result)
