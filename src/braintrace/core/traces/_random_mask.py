"""The carrier of random-sparse RTRL: the whole influence, on a random part of the dynamics."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from ..analysis import CellGraph, Structure
from ._masked import Masked, Rows, moves_of


@dataclasses.dataclass(frozen=True)
class RandomMask(Masked):
    """`J <- (D o M) J + I`: M keeps what a unit does to itself, all slots of it, and what `count`
    of the others do that move it, drawn once for each unit with `seed`. Whole influence, n |theta|.
    """

    reason: ClassVar[str] = "a random part of the dynamics is kept, the remainder left out"

    count: int = 1
    seed: Any = 0  # of a generator of NumPy's

    def mask(self, moves: Structure) -> Bool[np.ndarray, "U U"]:
        """[v, u]: whether what unit u does to unit v is kept."""
        draw = np.random.default_rng(self.seed)
        kept = np.eye(moves.number_of_units, dtype=bool)
        for v, movers in enumerate((moves.by_unit | moves.read_by_unit) & ~kept):
            others = np.flatnonzero(movers)
            kept[v, draw.permutation(others)[: self.count]] = True
        return kept

    def elements(self, moves: Structure) -> Bool[np.ndarray, "N n"]:
        """M."""
        kept = self.mask(moves)[moves.units[:, None], moves.units[None, : moves.size]]
        return kept | (moves.units < 0)[:, None]

    def kept(self, graph: CellGraph, rows: Rows) -> Rows:
        return jnp.where(self.elements(moves_of(graph)), rows, 0)

    def leaves_out(self, graph: CellGraph, n: int) -> bool:
        moves = moves_of(graph)
        touched = moves.drives[n][: moves.size].any(1)
        onward = moves.state[: moves.size]
        while (more := touched | (onward @ touched)).sum() > touched.sum():
            touched = more
        lost = moves.state & moves.seen[:, None] & ~self.elements(moves)
        return bool(lost[:, touched].any())
