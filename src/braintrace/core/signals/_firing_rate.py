"""A firing-rate term of the loss."""

import dataclasses
from collections.abc import Collection
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import CompilationError
from ..analysis import CellGraph, Exit, activities
from ..jaxpr import Atom, Var
from ..traces._filters import counting, sample_shaped
from ._editor import Edit, Editor, sg
from ._linear_loss import add_linear_loss, check_batch_in_front, check_read, signal_dtype

RATE_SCALE = "rate scale"  # for each sample, the weight of the rate's term at this step


@dataclasses.dataclass(frozen=True)
class FiringRate(Edit):
    """Adds the gradient of `strength / 2 sum_j (f_j - target)^2`, f_j the mean activity of neuron j
    over samples and steps.

    The activity is that of each group that others read, however they read it (see `activities`). f
    is a running mean (of this stream so far); the term of step t is `strength (f_j - target)
    mean_samples z_j`.
    """

    replaces: ClassVar[str] = "a firing-rate term is added"

    target: float
    strength: float

    def acts_on(self, graph: CellGraph, exits: list[Exit]) -> Collection[Var]:
        return activities(graph, exits).values()

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read = activities(editor.graph, exits)
        check_read(read, "firing_rate")
        samples = editor.graph.batch_size or 1
        scale = editor.signal(
            RATE_SCALE, np.full((samples,), 1 / samples, signal_dtype([*read.values()]))
        )
        for z in read.values():
            check_batch_in_front(editor, z)
            if jnp.issubdtype(z.dtype, np.complexfloating):
                raise CompilationError(
                    "A firing rate is the mean of a real activity.",
                    got=f"an activity of dtype {z.dtype}",
                    do="let the readout read one real part of the state, or leave firing_rate out",
                    at=editor.source_of(z),
                )
            # without a batch: one sample
            one = editor.apply(lambda v: v if editor.graph.batch_size else v[None], z)
            add_linear_loss(editor, self._term(editor, one, scale))

    def _term(self, editor: Editor, z: Var, scale: Atom) -> Atom:
        mean = editor.add_leaf("firing rate", np.zeros(z.shape, z.dtype), inert=True)
        count = editor.add_leaf(
            "steps of the firing rate", np.zeros(z.shape[:1], counting(z.dtype)), inert=True
        )
        n = editor.apply(lambda n: sg(n) + 1, count)
        average = lambda m, z, n: sg(m) + (sg(z) - sg(m)) / sample_shaped(n, z)
        m = editor.apply(average, mean, z, n)
        editor.set_leaf(mean, m)
        editor.set_leaf(count, n)

        def term(z: Array, m: Array, scale: Array) -> Array:
            excess = sg(m.mean(0, keepdims=True)) - self.target
            return (self.strength * excess * z * sample_shaped(scale, z)).sum()

        return editor.apply(term, z, m, scale)
