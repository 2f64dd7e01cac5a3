"""Steps whose loss has no gradient, drawn at random."""

import abc
import dataclasses
from collections.abc import Collection
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from ..analysis import CellGraph, Exit
from ..jaxpr import Const, Var
from ._editor import Edit, Editor, sg
from ._matrices import Seed

_ROUNDS, _STEPS = 1 << 10, 1 << 16  # after which the draws come again


class _SomeSteps(Edit):
    """The outputs, and what the rule adds to the loss, have a derivative at some steps; at others
    they are constants. All samples have the same steps, and a reset changes nothing. It stands in
    front of the edits that add to the loss.
    """

    @property
    @abc.abstractmethod
    def chosen(self) -> Bool[np.ndarray, " steps"]:
        """Whether a step is one of those, from the first step on."""

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return [v for v in graph.outs if isinstance(v, Var)]

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        chosen = self.chosen
        move = lambda n: (sg(n) + 1) % len(chosen)
        number, _ = editor.add_state("steps", np.zeros((), np.float32), move, shared=True)
        of_step = lambda n, chosen: chosen[n.astype(jnp.int32)]
        editor.counts = counts = editor.apply(of_step, number, Const(chosen))
        either = lambda out, counts: jnp.where(counts, out, sg(out))
        for k, out in enumerate(editor.outs):
            if out.differentiable:
                editor.outs[k] = editor.apply(either, out, counts)


def _random(seed: Seed) -> np.random.Generator:
    return np.random.default_rng(np.ravel(np.asarray(seed)).tolist())


@dataclasses.dataclass(frozen=True)
class RandomSteps(_SomeSteps):
    """`count` of each `steps` consecutive steps."""

    replaces: ClassVar[str] = "some steps alone, drawn at random, have a gradient"

    count: int
    steps: int
    seed: Seed

    @property
    def chosen(self) -> Bool[np.ndarray, " steps"]:
        random = _random(self.seed)
        ranks = random.permuted(np.tile(np.arange(self.steps), (_ROUNDS, 1)), axis=1)
        return (ranks < self.count).reshape(-1)


@dataclasses.dataclass(frozen=True)
class RandomEvents(_SomeSteps):
    """Each step by itself, with a probability of `rate`."""

    replaces: ClassVar[str] = "events alone, drawn at random, have a gradient"

    rate: float
    seed: Seed

    @property
    def chosen(self) -> Bool[np.ndarray, " steps"]:
        return _random(self.seed).random(_STEPS) < self.rate
