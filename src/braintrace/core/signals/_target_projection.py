"""OSTTP's signal: a projected target in the place of the loss."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ..analysis import Exit
from ..jaxpr import Const
from ._editor import TO_OTHERS, Edit, Editor, by_edge, sg
from ._linear_loss import add_linear_loss, first_output, read_by_others
from ._matrices import Seed, matrices

TARGET = "target"  # the signal y*, times the weight of the step's loss


@dataclasses.dataclass(frozen=True)
class TargetProjection(Edit):
    """The signal `-y* B_l` at the activity z_l of each hidden group; nothing from above reaches it.
    The output keeps its error.

    It is the gradient of `-sum_l <y* B_l, z_l>`. Of complex activities, `<a, z> = Re(conj(a) z)`:
    the real and the imaginary part are two activities, with Re B and Im B.
    """

    replaces: ClassVar[str] = "a projected target stands for the loss"

    seed: Seed
    scale: float
    weights: tuple[ArrayLike, ...] | None = dataclasses.field(default=None, compare=False)

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read, dtype = read_by_others(editor, exits, "A projected target")
        samples, n_target = editor.graph.batch_size or 1, self._n_target(editor)
        wanted = [((n_target, z.size // samples), z.dtype, self.scale) for z in read.values()]
        drawn = matrices(self.weights, self.seed, "B_list", "hidden group", wanted)
        target = editor.add_leaf(TARGET, np.zeros((samples, n_target), dtype), inert=True)

        def term(z: Array, y: Array, b: Array) -> Array:
            return -jnp.vdot((sg(y).astype(z.dtype) @ b).reshape(z.shape), z).real

        for z, b in zip(read.values(), drawn, strict=True):
            add_linear_loss(editor, editor.apply(term, z, target, Const(b)))
        mixing = {x.edge for x in exits}
        for (equation, k), found in by_edge(exits, *TO_OTHERS).items():
            constant = {read[x.group]: editor.stopped(read[x.group]) for x in found}
            equation.inputs[k] = editor.again(found[0].variable, constant, mixing)

    def _n_target(self, editor: Editor) -> int:
        if self.weights and np.ndim(self.weights[0]) == 2:
            return int(np.shape(self.weights[0])[0])
        out = editor.outs[first_output(editor)]
        return out.shape[-1] if out.shape else 1
