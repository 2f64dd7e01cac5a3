"""OSTTP's signal: a projected target in the place of the loss."""

import dataclasses
from collections.abc import Collection
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from ..analysis import CellGraph, Exit, activities
from ..jaxpr import Var
from ._editor import TO_OTHERS, Edit, Editor, by_edge, sg
from ._linear_loss import (
    add_linear_loss,
    check_batch_in_front,
    check_read,
    first_output,
    signal_dtype,
)
from ._matrices import Seed, check_number, matrix

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

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return activities(graph, exits).values()

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read = activities(editor.graph, exits)
        check_read(read, "A projected target")
        check_number(self.weights, len(read), "B_list", "hidden group")
        samples, n_target = editor.graph.batch_size or 1, self._n_target(editor)
        target = editor.signal(
            TARGET, np.zeros((samples, n_target), signal_dtype([*read.values()]))
        )

        def term(z: Array, y: Array, b: Array) -> Array:
            return -jnp.vdot((sg(y).astype(z.dtype) @ b).reshape(z.shape), z).real

        for number, z in enumerate(read.values()):
            check_batch_in_front(editor, z)
            of_option = (self.weights, self.seed, self.scale, "B_list")
            b = matrix(*of_option, number, (n_target, z.size // samples), z.dtype)
            add_linear_loss(editor, editor.apply(term, z, target, editor.constant(b)))
        mixing = {x.edge for x in exits}
        for edge, found in by_edge(exits, TO_OTHERS).items():
            constant = {read[x.group]: editor.stopped(read[x.group]) for x in found}
            editor.redirect(edge, editor.again(found[0].variable, constant, mixing))

    def _n_target(self, editor: Editor) -> int:
        if self.weights and np.ndim(self.weights[0]) == 2:
            return int(np.shape(self.weights[0])[0])
        out = editor.outs[first_output(editor)]
        return out.shape[-1] if out.shape else 1
