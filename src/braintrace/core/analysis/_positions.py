"""Positions: which elements of the carried state belong to one neuron (or channel, or unit).

The hidden state is cut into blocks (a leaf of the carry, or one of the equal pieces that a leaf is
concatenated from). Every element starts as a position of its own. Elements of different blocks are
joined when some variable influences both without mixing (the membrane and the adaptation of one
neuron). A group is *sound* when some block of it has exactly one element at every position, or when
there are several positions that all hold the same few elements (the halves of an oscillator), and
no position holds more than `max_slots`. What asks for more is mixing between neurons.

Joins come piece by piece (the excitatory half, then the inhibitory one), so a group may become
sound only at the end of a walk. Those that do not are labelled again with their blocks *strict*:
every join must then leave a sound group at once.

Blocks whose elements are joined in order need no list of positions: they are those of the first
block of their group. The first join of another kind writes the positions out.
"""

import bisect
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Int

from ._elements import Elements, as_array, components

_FEW = 4  # elements of a position that no block numbers


class Positions:
    """`group[b]` is the group of block b; blocks lie one behind the other."""

    def __init__(self, blocks: Sequence[range], max_slots: int, strict: Collection[int] = ()):
        self.blocks, self.starts = blocks, [b.start for b in blocks]
        self.max_slots, self.strict = max_slots, strict
        self.group = list(range(len(blocks)))
        self._position: np.ndarray | None = None
        self._joins = 0  # since they were last asked for

    def joined(self) -> bool:
        """Whether anything was joined since this was last asked."""
        joins, self._joins = self._joins, 0
        return joins > 0

    def blocks_of(self, elements: Elements) -> set[int]:
        """The blocks that elements belong to."""
        if isinstance(elements, range):
            last = elements.start + max(len(elements), 1) - 1
            return set(range(self._block_at(elements.start), self._block_at(last) + 1))
        return set(np.unique(self.owners(elements)).tolist())

    def of_block(self, k: int) -> Elements:
        """The positions of a block's elements."""
        if self._position is None:
            return self.blocks[self.group[k]]
        return self._position[self.blocks[k].start : self.blocks[k].stop]

    def join(self, a: Elements, b: Elements) -> bool:
        """Make the elements `a[i]` and `b[i]` one position for every i; False, and nothing changed,
        when that is refused.
        """
        if isinstance(a, range) and isinstance(b, range):
            if a == b:
                return True
            i, j = self._block_at(a.start), self._block_at(b.start)
            if self._position is None and (self.blocks[i], self.blocks[j]) == (a, b):
                return self._join_blocks(i, j)
        return self._join_elements(as_array(a), as_array(b))

    def _block_at(self, element: int) -> int:
        return bisect.bisect_right(self.starts, element) - 1

    def owners(self, elements: np.ndarray) -> np.ndarray:
        """The block of each element."""
        return np.searchsorted(self.starts, elements, side="right") - 1

    def _join_blocks(self, i: int, j: int) -> bool:
        members = [k for k, g in enumerate(self.group) if g in (self.group[i], self.group[j])]
        if self.group[i] != self.group[j] and len(members) <= self.max_slots:
            self._merge(members)
        return self.group[i] == self.group[j]

    def _merge(self, members: Sequence[int]) -> None:
        self._joins += 1
        first = min(self.group[k] for k in members)
        for k in members:
            self.group[k] = first

    def _join_elements(self, a: np.ndarray, b: np.ndarray) -> bool:
        if self._position is None:
            every = range(len(self.blocks))
            self._position = np.concatenate([as_array(self.of_block(k)) for k in every])
        position = self._position
        apart = position[a] != position[b]
        a, b = a[apart], b[apart]
        if not a.size:
            return True
        owner_a, owner_b = self.owners(a), self.owners(b)
        touched = {self.group[k] for k in np.unique(np.concatenate([owner_a, owner_b]))}
        members = [k for k, g in enumerate(self.group) if g in touched]
        strict = any(k in self.strict for k in members)
        own = owner_a == owner_b
        if own.any() and (strict or np.intersect1d(a[own], b[own]).size):  # or a shift of a block
            return False
        names, number = self._numbered(members)
        link = np.searchsorted(names, position[a]), np.searchsorted(names, position[b])
        root = components(names.size, *link)
        joined = root[number]
        counts = self._counts(members, joined, names.size)
        if (strict and not self._is_sound(counts)) or not self._fits(counts):
            return False
        for k, part in zip(members, self._parts(members, joined), strict=True):
            position[self.blocks[k].start : self.blocks[k].stop] = names[part]
        self._merge(members)
        return True

    def unsound(self) -> set[int]:
        """The blocks of groups that are not sound."""
        if self._position is None:
            return set()
        found: set[int] = set()
        for g in set(self.group):
            members = [k for k, other in enumerate(self.group) if other == g]
            names, number = self._numbered(members)
            if not self._is_sound(self._counts(members, number, names.size)):
                found.update(members)
        return found

    def _numbered(self, members: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """The positions of the blocks, and for each of their elements the number of its own."""
        parts = [as_array(self.of_block(k)) for k in members]
        return np.unique(np.concatenate(parts), return_inverse=True)

    def _parts(self, members: Sequence[int], values: np.ndarray) -> list[np.ndarray]:
        """Values of the elements of the blocks, block by block."""
        return np.split(values, np.cumsum([len(self.blocks[k]) for k in members])[:-1])

    def _counts(
        self, members: Sequence[int], number: np.ndarray, count: int
    ) -> Int[np.ndarray, "blocks positions"]:
        """How many elements of each block each position in use holds."""
        parts = self._parts(members, number)
        counts = np.array([np.bincount(part, minlength=count) for part in parts])
        return counts[:, counts.any(0)]

    def _fits(self, counts: np.ndarray) -> bool:
        return bool(counts.max(1).sum() <= self.max_slots)

    def _is_sound(self, counts: np.ndarray) -> bool:
        anchored = (counts == 1).all(1).any()
        uniform = (counts == counts[:, :1]).all() and counts.shape[1] > 1
        return bool(anchored or (uniform and counts[:, 0].sum() <= _FEW)) and self._fits(counts)
