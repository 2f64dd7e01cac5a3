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

    def kept(self, graph: CellGraph, rows: Rows) -> Rows:
        moves = moves_of(graph)
        kept = self.mask(moves)[moves.units[:, None], moves.units[None, : moves.size]]
        return jnp.where(kept | (moves.units < 0)[:, None], rows, 0)

    def leaves_out(self, graph: CellGraph, n: int) -> bool:
        moves, kept = moves_of(graph), self.mask(moves_of(graph))
        touched = np.zeros(moves.number_of_units, bool)
        touched[moves.units[: moves.size][moves.drives[n][: moves.size].any(1)]] = True
        while (more := touched | (moves.by_unit @ touched)).sum() > touched.sum():
            touched = more
        lost = (moves.by_unit & moves.seen[:, None]) | moves.read_by_unit
        return bool((lost & ~kept)[:, touched].any())
