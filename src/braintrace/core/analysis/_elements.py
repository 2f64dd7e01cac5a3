"""Numbers of elements, most of which run on in order: then they are a `range`, however long."""

import numpy as np

Elements = range | np.ndarray


def as_array(elements: Elements) -> np.ndarray:
    """The numbers, one by one."""
    if isinstance(elements, range):
        return np.arange(elements.start, elements.stop)
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
