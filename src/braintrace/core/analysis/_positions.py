"""Positions: which elements of the carried state belong to one neuron (or channel, or unit).

The hidden state is cut into blocks (a leaf of the carry, or one of the equal pieces that a leaf is
concatenated from). Every element starts as a position of its own. Elements of different blocks are
joined when some variable influences both without mixing (the membrane and the adaptation of one
neuron). A join is refused when no block of the would-be group has exactly one element at every
position, or when a position would hold more than `max_slots` elements: what asked for it is then
mixing between neurons.
"""

import dataclasses

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


@dataclasses.dataclass
class Positions:
    """`position[e]` is the position of element e, `block[e]` its block, `group[b]` the group of
    block b.
    """

    block: np.ndarray
    max_slots: int
    position: np.ndarray = dataclasses.field(init=False)
    group: np.ndarray = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.position = np.arange(self.block.size)
        self.group = np.arange(int(self.block.max(initial=-1)) + 1)

    def join(self, a: np.ndarray, b: np.ndarray) -> bool:
        """Make the elements `a[i]` and `b[i]` one position for every i; False, and nothing changed,
        when that is refused.
        """
        apart = self.position[a] != self.position[b]
        a, b = a[apart], b[apart]
        if not a.size:
            return True
        if (self.block[a] == self.block[b]).any():
            return False
        n = self.position.size
        links = coo_array(
            (np.ones(a.size, np.int8), (self.position[a], self.position[b])), shape=(n, n)
        )
        _, component = connected_components(links, directed=False)
        joined = component[self.position]
        touched = np.unique(self.group[self.block[np.concatenate([a, b])]])
        blocks = np.flatnonzero(np.isin(self.group, touched))
        if not self._is_group(blocks, joined):
            return False
        first = np.full(joined.max() + 1, n)
        np.minimum.at(first, joined, np.arange(n))
        self.position = first[joined]
        self.group[blocks] = self.group[blocks].min()
        return True

    def _is_group(self, blocks: np.ndarray, joined: np.ndarray) -> bool:
        distinct = np.unique(joined[np.isin(self.block, blocks)]).size
        most, anchored = 0, False
        for k in blocks:
            _, counts = np.unique(joined[self.block == k], return_counts=True)
            most += counts.max()
            anchored |= counts.max() == 1 and counts.size == distinct
        return anchored and most <= self.max_slots
