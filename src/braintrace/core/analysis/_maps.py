"""Relations between the elements of two variables: what says which element influences which."""

import dataclasses
from collections.abc import Callable

import numpy as np

_MOST = 16  # related elements for one element; more are mixing


@dataclasses.dataclass(frozen=True)
class Map:
    """Operand element `source[i]` influences element `target[i]` of result `output`; both None:
    element by element.
    """

    output: int
    source: np.ndarray | None = None
    target: np.ndarray | None = None

    @property
    def in_order(self) -> bool:
        """Whether it is the identity: element by element."""
        return self.source is None

    def made(self) -> "Map":
        """The map with its pairs."""
        return self

    def pairs(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        if self.source is None or self.target is None:
            return np.arange(size), np.arange(size)
        return self.source, self.target

    def then(self, other: "Map") -> "Map | None":
        """From this map's operand to the result of `other`, whose operand is this map's result;
        None where too many elements are related.
        """
        if self.source is None or self.target is None:
            return other
        if other.source is None or other.target is None:
            return Map(other.output, self.source, self.target)
        order = np.argsort(other.source, kind="stable")
        first, last = (
            np.searchsorted(other.source[order], self.target, side) for side in ("left", "right")
        )
        count = last - first
        total = int(count.sum())
        if total > _MOST * max(self.source.size, other.target.size):
            return None
        within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
        met = order[np.repeat(first, count) + within]
        return Map(other.output, np.repeat(self.source, count), other.target[met])

    def reversed(self, output: int) -> "Map":
        """From the result to the operand."""
        return Map(output, self.target, self.source)


@dataclasses.dataclass(frozen=True)
class LazyMap(Map):
    """A map whose pairs are made when they are asked for: a weight has many, and few ask."""

    make: Callable[[], Map] = lambda: Map(0)

    @property
    def in_order(self) -> bool:
        return False

    def made(self) -> Map:
        return self.make()

    def pairs(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        return self.make().pairs(size)


Influence = list[Map] | None


def union(maps: list[Map], size: int) -> list[Map]:
    """The maps, all onto one result, as one; `size` is that of the operand."""
    if all(m.source is None for m in maps):
        return maps[:1]
    if len(maps) == 1:
        return maps
    pairs = np.concatenate([np.stack(m.pairs(size)) for m in maps], 1)
    source, target = np.unique(pairs, axis=1)
    return [Map(maps[0].output, source, target)]
