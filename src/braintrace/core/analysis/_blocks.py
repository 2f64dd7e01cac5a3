"""Blocks: hidden leaves of the carry, or the equal pieces that they are put together from."""

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from ..jaxpr import is_elementwise, makers
from ._elements import Elements, as_array
from ._groups import Block
from ._labels import Known

_MOST_SLABS = 16


def blocks_of(known: Known, cut: Collection[int]) -> list[Block]:
    """The blocks of the hidden leaves, one behind the other; leaves in `cut` in pieces."""
    blocks, start = [], 0
    for k, variable in known.old.items():
        v = known.one.atom(variable)
        whole: list[tuple[Elements, tuple[int, ...]]] = [(range(v.size), v.shape)]
        for elements, shape in (pieces(known, k) or whole) if k in cut else whole:
            numbers = range(start, start + len(elements))
            blocks.append(Block(k, elements, shape, numbers))
            start = numbers.stop
    return blocks


def elements_of(blocks: Sequence[Block]) -> dict[int, Elements]:
    """For each hidden leaf the numbers of its elements among all hidden elements."""
    found: dict[int, Elements] = {}
    size = Counter[int]()
    for b in blocks:
        size[b.leaf] += len(b.numbers)
    for b in blocks:
        if isinstance(b.elements, range):
            found[b.leaf] = b.numbers
        else:
            numbers = found.setdefault(b.leaf, np.zeros(size[b.leaf], int))
            as_array(numbers)[b.elements] = as_array(b.numbers)
    return found


def pieces(known: Known, leaf: int) -> list[tuple[Elements, tuple[int, ...]]]:
    """The equal pieces that the new value of a leaf is put together from, as element numbers; none
    if it is not.

    Equations that only move the whole value (a reshape, a scatter that overwrites all) are looked
    through.
    """
    maker_of, one = makers(known.program.equations), known.one
    out = known.program.outputs[leaf]
    # of the leaf, for each element of `out`
    numbers = np.arange(one.atom(out).size)
    while (maker := maker_of.get(out)) and not is_elementwise(maker):
        found, operands = one.influences(maker), one.equation(maker).inputs
        acting = [k for k, influence in enumerate(found) if influence is None or influence]
        parts = []
        for k in acting:
            influence = found[k]
            if influence is None or len(influence) != 1:
                return []
            source, target = influence[0].pairs(operands[k].size)
            parts.append((numbers[target[np.argsort(source)]], operands[k].shape))
        complete = np.sort(np.concatenate([p for p, _ in parts])) if parts else np.arange(0)
        if not np.array_equal(complete, np.arange(numbers.size)):
            return []
        if len(parts) > 1:
            alike = len({shape for _, shape in parts}) == 1
            return parts if alike else _slabs(parts, maker.params.get("dimension"))
        [(numbers, _)], out = parts, maker.inputs[acting[0]]
    return []


def _slabs(
    parts: Sequence[tuple[np.ndarray, tuple[int, ...]]], axis: int | None
) -> list[tuple[Elements, tuple[int, ...]]]:
    """Unequal parts along an axis (of a shift register) as the slabs of size 1 that they hold."""
    if axis is None or sum(shape[axis] for _, shape in parts) > _MOST_SLABS:
        return []
    return [
        (slab.reshape(-1), slab.shape)
        for numbers, shape in parts
        for slab in np.split(numbers.reshape(shape), shape[axis], axis)
    ]
