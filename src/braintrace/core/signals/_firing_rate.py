"""A firing-rate term of the loss."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .._errors import CompilationError
from ..analysis import Exit
from ..traces._filters import sample_shaped
from ._editor import Edit, Editor, sg
from ._linear_loss import add_linear_loss, read_by_others

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

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read, dtype = read_by_others(editor, exits, "firing_rate")
        samples = editor.graph.batch_size or 1
        scale = editor.add_leaf(RATE_SCALE, np.full((samples,), 1 / samples, dtype), inert=True)

        def term(z: Array, m: Array, scale: Array) -> Array:
            excess = sg(m.mean(0, keepdims=True)) - self.target
            return (self.strength * excess * z * sample_shaped(scale, z)).sum()

        for z in read.values():
            if jnp.issubdtype(z.dtype, np.complexfloating):
                raise CompilationError(
                    "A firing rate is the mean of a real activity.",
                    got=f"an activity of dtype {z.dtype}",
                    do="let the readout read one real part of the state, or leave firing_rate out",
                    at=editor.source_of(z),
                )
            # without a batch: one sample
            one = editor.apply(lambda v: v if editor.graph.batch_size else v[None], z)
            mean = editor.leaky_mean("firing rate", one, 1.0)
            add_linear_loss(editor, editor.apply(term, one, mean, scale))
