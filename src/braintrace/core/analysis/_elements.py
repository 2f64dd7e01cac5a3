"""Numbers of elements, most of which run on in order: a run is two integers, however long it is."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Run:
    """`start, start + 1, ..., start + size - 1`."""

    start: int
    size: int


Elements = Run | np.ndarray


def as_array(elements: Elements) -> np.ndarray:
    """The numbers, one by one."""
    if isinstance(elements, Run):
        return np.arange(elements.start, elements.start + elements.size)
    return elements


def components(count: int, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """For each of `count` nodes the smallest node that the links `a[i] - b[i]` connect it with."""
    root = np.arange(count)
    while True:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        if (low == high).all():
            return root
        np.minimum.at(root, high, low)
        while (root[root] != root).any():
            root = root[root]
