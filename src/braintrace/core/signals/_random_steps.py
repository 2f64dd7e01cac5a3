"""Steps whose loss has no gradient, drawn at random."""

import dataclasses
from collections.abc import Collection
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ..analysis import CellGraph, Exit
from ..jaxpr import Const, Var
from ._editor import Edit, Editor, sg

_DRAWS = 1024  # then they come again


@dataclasses.dataclass(frozen=True)
class RandomSteps(Edit):
    """Of each `steps` consecutive steps, the outputs of `count` have a derivative; those of the
    others are constants. All samples have the same, and a reset changes nothing.
    """

    replaces: ClassVar[str] = "some steps alone, drawn at random, have a gradient"

    count: int
    steps: int
    seed: int | tuple[int, ...]

    @property
    def chosen(self) -> Bool[np.ndarray, " draws*steps"]:
        """Whether a step is one of those, from the first step on."""
        random = np.random.default_rng(self.seed)
        ranks = random.permuted(np.tile(np.arange(self.steps), (_DRAWS, 1)), axis=1)
        return (ranks < self.count).reshape(-1)

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return [v for v in graph.outs if isinstance(v, Var)]

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        chosen = self.chosen
        move = lambda n: (sg(n) + 1) % len(chosen)
        number, _ = editor.add_state("steps", np.zeros((), np.float32), move, shared=True)

        def one_of(
            out: Array, number: Float[Array, ""], chosen: Bool[Array, " draws*steps"]
        ) -> Array:
            return jnp.where(chosen[number.astype(jnp.int32)], out, sg(out))

        for k, out in enumerate(editor.outs):
            if out.differentiable:
                editor.outs[k] = editor.apply(one_of, out, number, Const(chosen))
