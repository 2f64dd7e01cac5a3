"""Terms at the activity of each hidden group that are its own: a local loss, a regulariser."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from .._errors import CompilationError
from ..analysis import Exit
from ..jaxpr import Const
from ..traces._filters import sample_shaped
from ._editor import Edit, Editor, sg
from ._linear_loss import (
    WEIGHT,
    add_linear_loss,
    first_output,
    groups_of,
    read_by_others,
    stop_for_others,
)
from ._matrices import Seed, matrices

LOCAL_TARGET = "local target"  # y*, as it is


@dataclasses.dataclass(frozen=True)
class LocalLoss(Edit):
    """The gradient of a local loss at the activity z_l of each hidden group, that of a fixed
    readout `r = z_l G_l` against the target; nothing from above reaches it. The output keeps its
    error.

    The loss of a sample is the mean over targets of (r - y*)^2 or, where it is `smooth`, of the
    smooth L1 norm: half of that below a distance of 1, and the distance less a half above. Of a
    complex activity, r is the real part.
    """

    replaces: ClassVar[str] = "a local loss stands for the loss"

    seed: Seed
    scale: float
    smooth: bool
    weights: tuple[ArrayLike, ...] | None = dataclasses.field(default=None, compare=False)

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read, dtype = read_by_others(editor, exits, "A local loss")
        activities, samples = list(groups_of(read)), editor.graph.batch_size or 1
        sizes, n_target = [z.size // samples for z in activities], self._n_target(editor)
        wanted = [
            ((size, n_target), np.result_type(z.dtype, dtype), self.scale / np.sqrt(size))
            for z, size in zip(activities, sizes, strict=True)
        ]
        drawn = matrices(self.weights, self.seed, "G_list", "activity", wanted)
        target = editor.add_leaf(LOCAL_TARGET, np.zeros((samples, n_target), dtype))
        weight = editor.add_leaf(WEIGHT, np.ones((samples,), dtype))

        def term(z: Array, y: Array, weight: Array, g: Array) -> Array:
            away = jnp.real(z.reshape(samples, -1).astype(g.dtype) @ g) - sg(y)
            far = jnp.abs(away) > 1
            near = jnp.where(far, 0, away)  # so that a square overflows for nothing
            smooth = jnp.where(far, jnp.abs(away) - 0.5, near**2 / 2)
            return (sg(weight) * (smooth if self.smooth else away**2).mean(-1)).sum()

        for z, g in zip(activities, drawn, strict=True):
            add_linear_loss(editor, editor.apply(term, z, target, weight, Const(g)))
        stop_for_others(editor, exits, read)

    def _n_target(self, editor: Editor) -> int:
        if self.weights and np.ndim(self.weights[0]) == 2:
            return int(np.shape(self.weights[0])[1])
        out = editor.outs[first_output(editor)]
        return out.shape[-1] if out.shape else 1


@dataclasses.dataclass(frozen=True)
class VoltageRegulariser(Edit):
    """Adds the signal `strength V [|V| > threshold]` at the activity of each hidden group, V its
    new potential: the state named in `voltages`, or its one state.
    """

    replaces: ClassVar[str] = "a regulariser of the voltage is added"

    strength: float
    threshold: float
    voltages: tuple[str, ...]

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read, dtype = read_by_others(editor, exits, "A regulariser of the voltage")
        samples, graph = editor.graph.batch_size or 1, editor.graph
        if unknown := set(self.voltages) - {graph.leaf_paths[k] for k in graph.group_of}:
            raise CompilationError(
                "There is no such state.",
                got=f"voltages={self.voltages!r}",
                expected=f"of {', '.join(graph.leaf_paths[k] for k in graph.group_of)}",
                do=f"leave out {', '.join(sorted(unknown))}",
            )
        weight = editor.add_leaf(WEIGHT, np.ones((samples,), dtype))

        def term(z: Array, v: Array, weight: Array) -> Array:
            beyond = jnp.where(jnp.abs(v) > self.threshold, v, 0).reshape(samples, -1)
            by_neuron = sample_shaped(sg(weight), beyond) * sg(beyond)
            return self.strength * (by_neuron * jnp.real(z).reshape(samples, -1)).sum()

        for z, groups in groups_of(read).items():
            v = graph.new_carry[self._voltage(editor, groups)]
            if v.shape != z.shape or jnp.issubdtype(v.dtype, np.complexfloating):
                raise CompilationError(
                    "A voltage does not fit the activity.",
                    got=f"a {v.dtype} of shape {v.shape} beside an activity of shape {z.shape}",
                    expected="a real voltage for each neuron",
                    at=editor.source_of(z),
                )
            add_linear_loss(editor, editor.apply(term, z, v, weight))

    def _voltage(self, editor: Editor, groups: list[int]) -> int:
        graph = editor.graph
        leaves = [k for g in groups for k in graph.groups[g].leaves]
        named = [k for k in leaves if graph.leaf_paths[k] in self.voltages]
        if len(found := named or leaves) == 1:
            return found[0]
        raise CompilationError(
            "The voltage is not known.",
            got=f"a group of the states {', '.join(graph.leaf_paths[k] for k in leaves)}",
            expected="voltages=, with the name of one of them",
            do="look at the groups in the report",
        )
