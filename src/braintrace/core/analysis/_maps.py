"""Relations between the elements of two variables: what says which element influences which."""

import dataclasses
from collections.abc import Callable

import numpy as np

_MOST = 16  # related elements for one element; more are mixing


Pairs = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Map:
    """Operand element `source[i]` influences element `target[i]` of result `output`, with `make()`
    the pairs, made when they are asked for: a weight has many, and few ask. None: element by
    element.
    """

    output: int
    make: Callable[[], Pairs] | None = None

    @property
    def in_order(self) -> bool:
        """Whether it is the identity: element by element."""
        return self.make is None

    def pairs(self, size: int = 0) -> Pairs:
        """The pairs; `size` is that of the operand."""
        return (np.arange(size), np.arange(size)) if self.make is None else self.make()

    def then(self, other: "Map") -> "Map | None":
        """From this map's operand to the result of `other`, whose operand is this map's result;
        None where too many elements are related.
        """
        if self.in_order or other.in_order:
            return Map(other.output, self.make or other.make)
        (source, met), (start, end) = self.pairs(), other.pairs()
        order = np.argsort(start, kind="stable")
        first, last = (np.searchsorted(start[order], met, side) for side in ("left", "right"))
        count = last - first
        total = int(count.sum())
        if total > _MOST * max(source.size, end.size):
            return None
        within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
        end = end[order[np.repeat(first, count) + within]]
        return related(other.output, np.repeat(source, count), end)

    def reversed(self, output: int) -> "Map":
        """From the result to the operand."""

        def turned() -> Pairs:
            source, target = self.pairs()
            return target, source

        return Map(output, self.make and turned)


Influence = list[Map] | None


def related(output: int, source: np.ndarray, target: np.ndarray) -> Map:
    """The map with these pairs."""
    return Map(output, lambda: (source, target))


def union(maps: list[Map], size: int) -> list[Map]:
    """The maps, all onto one result, as one; `size` is that of the operand."""
    if len(maps) == 1 or all(m.in_order for m in maps):
        return maps[:1]
    pairs = np.concatenate([np.stack(m.pairs(size)) for m in maps], 1)
    source, target = np.unique(pairs, axis=1)
    return [related(maps[0].output, source, target)]
