"""The equal pieces of a leaf of the carry whose elements meet each other, a state variable each:
`stack([v, a])`, a shift register, a bank of filters.
"""

from collections.abc import Collection, Iterator

import numpy as np

from ..jaxpr import Atom, Equation, Program, Var, is_elementwise
from ._influence import influences

Piece = tuple[np.ndarray, tuple[int, ...]]  # elements of the flattened leaf, and their shape


def pieces(program: Program, leaf: int, distances: Collection[int], most: int) -> list[Piece]:
    """The pieces of a leaf, none where it has no two; elements that are `distances` apart meet.

    They are what its new value is put together from, or else the slices, at most `most`, along the
    one axis along which elements meet.
    """
    out = program.outputs[leaf]
    if not isinstance(out, Var):
        return []
    makers = {v: e for e in program.equations for v in e.outputs}
    found = list(_parts(makers, out, np.arange(out.size)))
    equal = len(found) > 1 and len({shape for _, shape in found}) == 1
    if equal and (np.sort(np.concatenate([p for p, _ in found])) == np.arange(out.size)).all():
        return found
    return _slices(out.shape, distances, most)


def _parts(makers: dict[Var, Equation], v: Atom, numbers: np.ndarray) -> Iterator[Piece]:
    """What a variable is put together from; `numbers` has the leaf's element for each of its own,
    -1 where another part has replaced it.
    """
    maker = makers.get(v) if isinstance(v, Var) else None
    inner = None if maker is None else _inside(maker, numbers)
    if maker is not None and is_elementwise(maker):
        for operand in maker.inputs:
            if (
                operand.shape == v.shape
                and len(found := list(_parts(makers, operand, numbers))) > 1
            ):
                yield from found
                return
    if inner is None:
        yield numbers, v.shape
        return
    for operand, part in inner:
        if len(inner) > 1 and (part >= 0).all():
            yield part, operand.shape
        elif (part >= 0).any():
            yield from _parts(makers, operand, part)


def _inside(maker: Equation, numbers: np.ndarray) -> list[tuple[Atom, np.ndarray]] | None:
    """The operands that a result is put together from, with the leaf's elements in each; None where
    its maker does more than that.
    """
    if is_elementwise(maker) or len(maker.outputs) > 1:
        return None
    found = []
    for operand, influence in zip(maker.inputs, influences(maker), strict=True):
        if influence == []:
            continue
        if influence is None or len(influence) > 1:
            return None
        source, target = influence[0].pairs(operand.size)
        if np.unique(source).size < source.size or np.unique(target).size < target.size:
            return None
        part = np.full(operand.size, -1)
        part[source] = numbers[target]
        found.append((operand, part))
    return found


def _slices(shape: tuple[int, ...], distances: Collection[int], most: int) -> list[Piece]:
    """The slices along the one axis along which all `distances` lie, if another axis is left."""
    numbers = np.arange(int(np.prod(shape))).reshape(shape)
    for axis, size in enumerate(shape):
        stride = int(np.prod(shape[axis + 1 :]))
        along = all(d % stride == 0 and d < stride * size for d in distances)
        if along and distances and size <= most:
            others = shape[:axis] + shape[axis + 1 :]
            cut = np.moveaxis(numbers, axis, 0)
            return [(c.reshape(-1), others) for c in cut] if len(others) > 1 else []
    return []
