"""A term of the loss that is linear in the activities: the backward pass of a step adds its
gradient.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._errors import CompilationError
from ..analysis import BatchAxis, Exit, activities
from ..jaxpr import Atom, Var
from ..traces._filters import counting
from ._editor import Editor


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
    """Let the backward pass of the step's first output add the gradient of the scalar `signal`."""
    k = first_output(editor)
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
