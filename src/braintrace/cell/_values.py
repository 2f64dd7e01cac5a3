"""Named arrays as a tree: how the front ends of frameworks hand parameters and states to a cell."""

from collections.abc import Sequence
from typing import Any

import jax
from jaxtyping import PyTree


@jax.tree_util.register_pytree_with_keys_class
class Values:
    """Arrays with their names, in order."""

    def __init__(self, names: tuple[str, ...], leaves: Sequence[Any]):
        self.names, self.leaves = names, list(leaves)

    def tree_flatten_with_keys(self) -> PyTree:
        return list(zip(self.names, self.leaves, strict=True)), self.names

    def tree_flatten(self) -> PyTree:
        return self.leaves, self.names

    @classmethod
    def tree_unflatten(cls, names: tuple[str, ...], leaves: Any) -> "Values":
        return cls(names, leaves)


def merged(trained: PyTree, params: PyTree) -> PyTree:
    """`params` with the values of `trained` where it has any."""
    return jax.tree.map(
        lambda t, p: p if t is None else t, trained, params, is_leaf=lambda v: v is None
    )
