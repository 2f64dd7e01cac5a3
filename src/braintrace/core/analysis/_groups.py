"""From positions to state groups with slots, and from labelled variables to the places of sites."""

import dataclasses

import numpy as np

from ..jaxpr import Equation, Var
from ._dependence import Edge, reach
from ._graph import Place, Slot, StateGroup
from ._positions import Positions


@dataclasses.dataclass(frozen=True)
class Block:
    """A hidden leaf of the carry, or one of the equal pieces that it is concatenated from."""

    leaf: int  # number of the carry leaf
    elements: np.ndarray  # its elements, in the flattened leaf
    shape: tuple[int, ...]
    start: int  # its first hidden element


@dataclasses.dataclass(frozen=True)
class Layout:
    """The groups, and for each hidden element its group and its position in it."""

    groups: tuple[StateGroup, ...]
    group: np.ndarray
    position: np.ndarray

    def places(
        self, elements: np.ndarray, shape: tuple[int, ...], reached: set[Var], new: dict[int, Var]
    ) -> tuple[Place, ...]:
        """Where y, whose labels are `elements`, acts; `reached` holds what it influences, `new` the
        new hidden leaves.
        """
        found = []
        for g in np.unique(self.group[elements[elements >= 0]]):
            group = self.groups[g]
            mine = (elements >= 0) & (self.group[elements] == g)
            positions = np.where(mine, self.position[elements], -1).reshape(shape)
            direct = np.array([new.get(s.leaf) in reached for s in group.slots], bool)
            active = direct.copy()
            for _ in group.slots:
                active |= group.coupling @ active
            if active.any():
                slots, at_once = (tuple(np.flatnonzero(a).tolist()) for a in (active, direct))
                found.append(Place(int(g), positions, slots, at_once))
        return tuple(found)


def layout(
    blocks: list[Block],
    positions: Positions,
    equations: list[Equation],
    mixing: set[Edge],
    old: dict[int, Var],
    new: dict[int, Var],
    outs: set[Var],
) -> Layout:
    """Number the positions of each group and find the slots that a later step reads."""
    total = positions.block.size
    group_of, position_of = np.full(total, -1), np.full(total, -1)
    groups = []
    ends = outs | set(new.values())
    for number in dict.fromkeys(positions.group.tolist()):
        members = [b for k, b in enumerate(blocks) if positions.group[k] == number]
        anchor = max(members, key=lambda b: len(np.unique(_positions_of(b, positions))))
        order = _positions_of(anchor, positions)
        index = {p: i for i, p in enumerate(order.tolist())}
        slots = []
        for b in members:
            local = np.array([index[p] for p in _positions_of(b, positions).tolist()], int)
            span = slice(b.start, b.start + b.elements.size)
            group_of[span], position_of[span] = len(groups), local
            if reach(equations, [old[b.leaf]], mixing) & ends:
                slots += _slots(b, local, order.size)
        reached = [reach(equations, [old[s.leaf]], mixing) for s in slots]
        coupling = np.array([[new.get(s.leaf) in r for r in reached] for s in slots], bool).reshape(
            len(slots), len(slots)
        )
        leaves = tuple(dict.fromkeys(b.leaf for b in members))
        groups.append(StateGroup(tuple(slots), order.size, anchor.shape, leaves, coupling))
    return Layout(tuple(groups), group_of, position_of)


def _positions_of(block: Block, positions: Positions) -> np.ndarray:
    return positions.position[block.start : block.start + block.elements.size]


def _slots(block: Block, local: np.ndarray, count: int) -> list[Slot]:
    """The k-th element of the block at each position makes its k-th slot."""
    order = np.argsort(local, kind="stable")
    sorted_local = local[order]
    rank = np.arange(local.size) - np.searchsorted(sorted_local, sorted_local)
    slots = []
    for k in range(int(rank.max(initial=-1)) + 1):
        elements = np.full(count, -1)
        chosen = order[rank == k]
        elements[local[chosen]] = block.elements[chosen]
        slots.append(Slot(block.leaf, elements))
    return slots
