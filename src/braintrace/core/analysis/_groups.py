"""From positions to state groups with slots, and from labelled variables to the places of sites.

Everything here is of one sample.
"""

import dataclasses
import functools
from collections.abc import Sequence, Set

import numpy as np

from ._batch_axis import BatchAxis
from ._dependence import Edge, reach
from ._elements import Elements, as_array
from ._graph import CellGraph, Place, Slot, StateGroup, new_leaves
from ._positions import Positions


@dataclasses.dataclass(frozen=True)
class Block:
    """A hidden leaf of the carry, or one of the equal pieces that it is concatenated from."""

    leaf: int  # number of the carry leaf
    elements: Elements  # its elements, in the flattened leaf
    shape: tuple[int, ...]
    numbers: range  # of its elements among all hidden elements


@dataclasses.dataclass(frozen=True)
class Layout:
    """The groups; for each block its hidden elements, its group, and their positions in it (None:
    in order).
    """

    groups: tuple[StateGroup, ...]
    blocks: Sequence[tuple[range, int, np.ndarray | None]]

    def places(
        self, elements: Elements, shape: tuple[int, ...], axis: BatchAxis | None, moved: Set[int]
    ) -> tuple[Place, ...]:
        """Where y, whose labels are `elements`, acts; `moved` has the hidden leaves that it
        influences. `shape` is that of y for one sample, `axis` its batch axis.
        """
        found = []
        for g, positions in self._positions(elements, shape):
            group = self.groups[g]
            direct = np.array([s.leaf in moved for s in group.slots], bool)
            active = direct.copy()
            for _ in group.slots:
                active |= group.coupling @ active
            if active.any():
                slots, at_once = (tuple(np.flatnonzero(a).tolist()) for a in (active, direct))
                found.append(Place(g, positions, slots, at_once, shape, axis))
        return tuple(found)

    def _positions(
        self, elements: Elements, shape: tuple[int, ...]
    ) -> list[tuple[int, np.ndarray | None]]:
        """The groups that elements belong to, with their positions there (None: all, in order)."""
        for block, group, local in self.blocks:
            if isinstance(elements, range) and elements == block and local is None:
                return [(group, None)]
        numbers = as_array(elements)
        owner, position = self._of_elements
        groups = np.where(numbers >= 0, owner[numbers], -1)
        return [
            (int(g), np.where(groups == g, position[numbers], -1).reshape(shape))
            for g in np.unique(groups[groups >= 0])
        ]

    @functools.cached_property
    def _of_elements(self) -> tuple[np.ndarray, np.ndarray]:
        """The group and the position of each hidden element."""
        group = [np.full(len(block), g) for block, g, _ in self.blocks]
        position = [np.arange(len(block)) if at is None else at for block, _, at in self.blocks]
        return np.concatenate(group), np.concatenate(position)


def layout(
    blocks: Sequence[Block],
    positions: Positions,
    graph: CellGraph,
    mixing: Set[Edge],
    multi_step: bool,
) -> Layout:
    """Number the positions of each group and find the slots that a later step reads: by position,
    or with `multi_step` in any way.
    """
    new, step = new_leaves(graph), graph.program.equations
    groups: list[StateGroup] = []
    placed: dict[int, tuple[range, int, np.ndarray | None]] = {}
    reached = {k: reach(step, [graph.carry[k]], mixing) for k in graph.hidden}
    read = {k: reach(step, [graph.carry[k]]) for k in graph.hidden} if multi_step else reached
    kept = set(graph.program.outputs)
    for number in dict.fromkeys(positions.group):
        members = [k for k, g in enumerate(positions.group) if g == number]
        anchor = max(members, key=lambda k: _count(positions.of_block(k)))
        order, shape = positions.of_block(anchor), blocks[anchor].shape
        if (count := _count(order)) < len(order):  # several elements of a block at each position
            order, shape = np.unique(as_array(order)), (count,)
        slots: list[Slot] = []
        for k in members:
            local = _located(positions.of_block(k), order)
            placed[k] = blocks[k].numbers, len(groups), local
            if read[blocks[k].leaf] & kept:
                slots += _slots(blocks[k], local, count)
        coupling = np.array(
            [[new.get(s.leaf) in reached[q.leaf] for q in slots] for s in slots], bool
        ).reshape(len(slots), len(slots))
        leaves = tuple(dict.fromkeys(blocks[k].leaf for k in members))
        groups.append(StateGroup(tuple(slots), count, shape, leaves, coupling))
    return Layout(tuple(groups), [placed[k] for k in range(len(blocks))])


def _count(positions: Elements) -> int:
    return len(positions) if isinstance(positions, range) else np.unique(positions).size


def _located(positions: Elements, order: Elements) -> np.ndarray | None:
    """Where positions stand in `order`; None for one after the other."""
    if isinstance(positions, range) and positions == order:
        return None
    names, order = as_array(positions), as_array(order)
    if np.array_equal(names, order):
        return None
    sorter = np.argsort(order)
    return sorter[np.searchsorted(order, names, sorter=sorter)]


def _slots(block: Block, local: np.ndarray | None, count: int) -> list[Slot]:
    """The k-th element of the block at each position makes its k-th slot."""
    if local is None:
        return [Slot(block.leaf, block.elements)]
    order = np.argsort(local, kind="stable")
    sorted_local = local[order]
    rank = np.arange(local.size) - np.searchsorted(sorted_local, sorted_local)
    numbers, slots = as_array(block.elements), []
    for k in range(int(rank.max(initial=-1)) + 1):
        elements = np.full(count, -1)
        chosen = order[rank == k]
        elements[local[chosen]] = numbers[chosen]
        slots.append(Slot(block.leaf, elements))
    return slots
