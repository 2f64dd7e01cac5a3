"""Index arrays of a trace that is kept for some pairs of a state element and a weight element."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from ..analysis import BatchAxis, CellGraph, Site, Structure, prelude_nonzero
from ..sites import SiteRule
from ._slots import part_shape

Index = Int[np.ndarray, " k"]

_DIGIT = 1 << 12  # numbers below it survive in any floating-point dtype that JAX computes with


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Of one site. A trace entry p is of state element `state[p]` and weight element `weight[p]`.

    `hops`: entry `to` gets the derivative `by` (row and column in one) times entry `of`. `reads`:
    outlet element and column in one, times the entry. `drives`: entry, derivative by y (row and y
    in one), and the entry of the operation's own trace with the data, which lie at `entries`.
    """

    state: Index
    weight: Index
    hops: tuple[Index, Index, Index]  # to, by, of
    reads: tuple[Index, Index]  # by, of
    drives: tuple[Index, Index, Index]  # to, by, of
    entries: Int[np.ndarray, "samples r"]
    leaves_out: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Entries:
    """The trace of an operation, entry by entry, of one sample: the element of y and of the weight
    that each belongs to, and where it lies in the traces of all.
    """

    y: Index
    weight: Index
    at: Int[np.ndarray, "samples r"]


def pairs_of(graph: CellGraph, n: int, steps: int) -> Pairs | None:
    """The pairs within reach of `steps` steps; None where that is every pair, or not known."""
    assert graph.moves is not None
    site, moves = graph.sites[n], graph.moves
    found = entries_of(graph, n)
    if found is None:
        return None
    size, weights = moves.size, math.prod(part_shape(graph, site))
    of_y = _lists(moves.drives[n][:size].T)
    entry, state = _expanded(found.y, of_y)
    units = moves.units
    touched = np.unique(units[state] * weights + found.weight[entry])
    members = _lists(units[:size] == np.arange(moves.number_of_units)[:, None])
    onward = _lists(moves.by_unit.T)
    for _ in range(steps - 1):
        more = _onward(touched, onward, weights)
        if len(more) == len(touched):
            break
        touched = more
    k, state_of = _expanded(touched // weights, members)
    pairs = np.unique(state_of * weights + touched[k] % weights)
    if len(pairs) == size * weights:
        return None
    row, weight = pairs // weights, pairs % weights
    p, to = _expanded(row, _lists(moves.state[:size].T))
    target, kept = _located(pairs, to * weights + weight[p])
    order = np.argsort(target, kind="stable")
    hops = target[order], (to * size + row[p])[kept][order], p[kept][order]
    q, outlet = _expanded(row, _lists(moves.state[size:].T))
    unit = units[size + outlet]
    _, in_reach = _located(touched, unit * weights + weight[q])
    read = in_reach | (unit < 0)
    drive, _ = _located(pairs, state * weights + found.weight[entry])
    ys = moves.drives[n].shape[1]
    return Pairs(
        state=row,
        weight=weight,
        hops=hops,
        reads=((outlet * size + row[q])[read], q[read]),
        drives=(drive, state * ys + found.y[entry], entry),
        entries=found.at,
        leaves_out=_leaves_out(moves, np.unique(pairs[drive]), touched, weights),
    )


def _leaves_out(moves: Structure, start: Index, touched: Index, weights: int) -> bool:
    """Whether a loss sees anything beyond the touched units of what the pairs of `start` move."""
    onward, reached = _lists((moves.state & moves.seen[:, None]).T), start
    while True:
        k, to = _expanded(reached // weights, onward)
        weight, unit = reached[k] % weights, moves.units[to]
        _, kept = _located(touched, unit * weights + weight)
        if (~kept & (unit >= 0)).any():
            return True
        inside = to < moves.size
        more = np.union1d(reached, to[inside] * weights + weight[inside])
        if len(more) == len(reached):
            return False
        reached = more


def entries_of(graph: CellGraph, n: int) -> Entries | None:
    """None where the operation does not say which entry is of which element."""
    site, rule = graph.sites[n], graph.sites[n].rule
    if not rule.is_bound:
        return None
    axis, part = graph.y_axis(site), graph.weight_axis(site)
    with jax.ensure_compile_time_eval():
        numbers = jnp.arange(1, site.y.size + 1, dtype=jnp.int32).reshape(site.y.shape)
        y = np.asarray(jnp.broadcast_to(rule.at_entries(numbers), rule.trace_shape)).reshape(-1) - 1
        weight = _weights_of_entries(rule, site)
        sample, own = _in_samples(axis, site.y.shape)
        _, of_sample = _in_samples(part, site.weight.shape)
    if weight is None:
        return None
    known = prelude_nonzero(graph, site.weight)
    there = (y >= 0) & (True if known is None else known.reshape(-1)[weight])
    weight = of_sample[weight]
    at = np.flatnonzero(there)
    sample, own, weight = sample[y[at]], own[y[at]], weight[at]
    order = np.lexsort((own, weight, sample))
    count = graph.samples if axis is not None else 1
    if order.size % count:
        return None
    own, weight, at = (v[order].reshape(count, -1) for v in (own, weight, at))
    if (own != own[0]).any() or (weight != weight[0]).any():
        return None
    return Entries(own[0], weight[0], at)


def _in_samples(axis: BatchAxis | None, shape: tuple[int, ...]) -> tuple[Index, Index]:
    """The sample of each element of an array, and its number there."""
    numbers = np.arange(math.prod(shape))
    if axis is None:
        return np.zeros_like(numbers), numbers
    apart = np.asarray(axis.apart(jnp.asarray(numbers.reshape(shape)))).reshape(axis.size, -1)
    sample, own = np.zeros_like(numbers), np.zeros_like(numbers)
    sample[apart], own[apart] = np.indices(apart.shape)
    return sample, own


def _weights_of_entries(rule: SiteRule, site: Site) -> Index | None:
    """The weight element that each entry of a trace is summed into."""
    shape = site.weight.shape
    like = jax.ShapeDtypeStruct(rule.trace_shape, jnp.float32)
    try:
        read = jax.linear_transpose(rule.collect, like)
    except (TypeError, NotImplementedError):
        return None
    numbers = np.arange(site.weight.size)
    digit = lambda d: np.asarray(read(jnp.asarray(d.reshape(shape), jnp.float32))[0]).reshape(-1)
    one, low, high = map(digit, (np.ones_like(numbers), numbers % _DIGIT, numbers // _DIGIT))
    found = np.rint(high).astype(int) * _DIGIT + np.rint(low).astype(int)
    return found if (one == 1).all() else None


Lists = tuple[Index, Index]  # where each list starts and ends, and the lists one behind the other


def _lists(member: np.ndarray) -> Lists:
    """For each row the columns that are marked."""
    of, values = np.nonzero(member)
    return np.searchsorted(of, np.arange(len(member) + 1)), values


def _expanded(keys: Index, lists: Lists) -> tuple[Index, Index]:
    """(number of the key, value), for each value of each key's list."""
    starts, values = lists
    first, count = starts[keys], np.diff(starts)[keys]
    number = np.repeat(np.arange(len(keys)), count)
    within = np.arange(len(number)) - np.repeat(np.cumsum(count) - count, count)
    return number, values[np.repeat(first, count) + within]


def _onward(touched: Index, onward: Lists, weights: int) -> Index:
    k, unit = _expanded(touched // weights, onward)
    return np.union1d(touched, unit * weights + touched[k] % weights)


def _located(known: Index, wanted: Index) -> tuple[Index, np.ndarray]:
    """Where the wanted that are known stand, and which these are."""
    at = np.searchsorted(known, wanted)
    found = known[np.minimum(at, len(known) - 1)] == wanted if len(known) else np.zeros(0, bool)
    return at[found], found
