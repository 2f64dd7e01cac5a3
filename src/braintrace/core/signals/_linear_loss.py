"""Terms of the loss that are linear in the activities: the backward pass of a step adds their
gradient.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from .._errors import CompilationError
from ..analysis import BatchAxis, Exit, activities
from ..jaxpr import Atom, Const, Var
from ..traces._filters import counting, sample_shaped
from ._editor import TO_OTHERS, Edit, Editor, by_edge, sg
from ._matrices import Seed, matrices

RATE_SCALE = "rate scale"  # for each sample, the weight of the rate's term at this step
TARGET = "target"  # the signal y*, times the weight of the step's loss
WEIGHT = "weight"  # for each sample, that of the step's loss


@jax.custom_vjp
def inject(out: Array, signal: Float[Array, ""]) -> Array:
    """`out`, whose backward pass also differentiates the real scalar `signal`, whatever the
    cotangent of `out`.
    """
    return out


inject.defvjp(
    lambda out, signal: (out, signal), lambda signal, cotangent: (cotangent, jnp.ones_like(signal))
)


def first_output(editor: Editor) -> int:
    """The number of the first output that a loss could read."""
    for k, out in enumerate(editor.outs):
        if isinstance(out, Var) and out.differentiable:
            return k
    raise CompilationError(
        "The cell has no output that a loss could read.",
        expected="a cell that returns (carry, out) with a real out",
    )


def add_linear_loss(editor: Editor, signal: Atom) -> None:
    """Let the backward pass of the step's first output add the gradient of the scalar `signal`, at
    the steps that count.
    """
    k = first_output(editor)
    if editor.counts is not None:
        signal = editor.apply(lambda s, counts: jnp.where(counts, s, 0), signal, editor.counts)
    editor.outs[k] = editor.apply(inject, editor.outs[k], signal)


def read_by_others(editor: Editor, exits: list[Exit], what: str) -> tuple[dict[int, Var], np.dtype]:
    """The activities of groups that `what` acts on, whose samples are known, and a real dtype for
    signals at them: at least float32.
    """
    read = activities(editor.graph, exits)
    if not read:  # it would act on nothing
        raise CompilationError(
            f"{what} acts on what others read of the hidden state, and nothing is read.",
            expected="a product or another mixing operation that reads the activity",
            do="put the readout into the model: a linear layer whose result is the output",
        )
    for z in read.values():
        check_batch_in_front(editor, z)
    return read, np.result_type(np.float32, *(counting(z.dtype) for z in read.values()))


def groups_of(read: Mapping[int, Var]) -> dict[Var, list[int]]:
    """Each activity of `read` once, with the groups that it is of: a potential and a refractory
    current, say.
    """
    found: dict[Var, list[int]] = {}
    for group, z in read.items():
        found.setdefault(z, []).append(group)
    return found


def check_batch_in_front(editor: Editor, z: Var) -> None:
    """What is said per sample acts on activities whose samples are known, on axis 0."""
    graph = editor.graph
    if graph.claim is not None and graph.batch_size is None:
        raise CompilationError(
            "The batch is not known: samples would meet if axis 0 of the carry were the batch.",
            expected="batch_size, batch_axes or batch=None",
            do="say one of them to compile",
        )
    axis = graph.batch_axis(z) or (BatchAxis(0, 1) if z.shape[:1] == (1,) else None)
    if graph.batch_size is not None and axis != BatchAxis(0, graph.batch_size):
        raise CompilationError(
            "An activity does not have the batch on axis 0.",
            got=f"shape {z.shape}",
            expected=f"({graph.batch_size}, ...)",
            do="give the activity the batch in front, and transpose it where it is read",
            at=editor.source_of(z),
        )


def stop_for_others(editor: Editor, exits: list[Exit], read: Mapping[int, Var]) -> None:
    """Let others read the activities of `read` as constants, so that no error from above reaches
    them.
    """
    mixing = {x.edge for x in exits}
    for (equation, k), found in by_edge(exits, *TO_OTHERS).items():
        own = {read[x.group] for x in found if x.group in read}
        constant = {z: editor.stopped(z) for z in own}
        equation.inputs[k] = editor.again(found[0].variable, constant, mixing)


@dataclasses.dataclass(frozen=True)
class FiringRate(Edit):
    """Adds the gradient of `strength / 2 sum_j (f_j - target)^2`, f_j the mean activity of neuron j
    over samples and steps.

    The activity is that of each group that others read, however they read it (see `activities`). f
    is a running mean (of this stream so far); the term of step t is `strength (f_j - target)
    mean_samples z_j`.

    >>> from braintrace import rules
    >>> rules.FiringRate(target=0.1, strength=2.0).target
    0.1
    """

    replaces: ClassVar[str] = "a firing-rate term is added"
    meets: ClassVar[bool] = True

    target: float
    strength: float

    def edit(self, editor: Editor, exits: list[Exit]) -> None:
        read, dtype = read_by_others(editor, exits, "firing_rate")
        samples = editor.graph.batch_size or 1
        scale = editor.add_leaf(RATE_SCALE, np.full((samples,), 1 / samples, dtype))

        def term(z: Array, m: Array, scale: Array) -> Array:
            excess = sg(m.mean(0, keepdims=True)) - self.target
            return (self.strength * excess * z * sample_shaped(scale, m)).sum()

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


@dataclasses.dataclass(frozen=True)
class TargetProjection(Edit):
    """The signal `-y* B_l` at the activity z_l of each hidden group; nothing from above reaches it.
    The output keeps its error.

    It is the gradient of `-sum_l <y* B_l, z_l>`. Of complex activities, `<a, z> = Re(conj(a) z)`:
    the real and the imaginary part are two activities, with Re B and Im B.

    >>> from braintrace import rules
    >>> rules.TargetProjection(seed=0, scale=1.0).scale
    1.0
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
        target = editor.add_leaf(TARGET, np.zeros((samples, n_target), dtype))

        def term(z: Array, y: Array, b: Array) -> Array:
            return -jnp.vdot((sg(y).astype(z.dtype) @ b).reshape(z.shape), z).real

        for z, b in zip(read.values(), drawn, strict=True):
            add_linear_loss(editor, editor.apply(term, z, target, Const(b)))
        stop_for_others(editor, exits, read)

    def _n_target(self, editor: Editor) -> int:
        if self.weights and np.ndim(self.weights[0]) == 2:
            return int(np.shape(self.weights[0])[0])
        out = editor.outs[first_output(editor)]
        return out.shape[-1] if out.shape else 1
