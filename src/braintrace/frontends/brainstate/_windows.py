"""Several steps in one call: inputs marked as `MultiStepData`, and sequences in windows of steps
for a step function that makes such calls.
"""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ...cell import sequence_length
from ...cell._arguments import checked_window
from ...compat import MultiStepData, SingleStepData
from ...core._errors import UsageError

if TYPE_CHECKING:
    from ._algorithm import ETraceAlgorithm


def unwrap(inputs: tuple[PyTree, ...]) -> tuple[tuple[PyTree, ...], bool]:
    """The bare inputs, and whether they hold several steps; beside one that does, the inputs of
    one step are the same at each.
    """
    marks = SingleStepData, MultiStepData
    bare = tuple(v.data if isinstance(v, marks) else v for v in inputs)
    many = [isinstance(v, MultiStepData) for v in inputs]
    if any(many) and not all(many):
        timed = tuple(v for v, several in zip(bare, many, strict=True) if several)
        steps = sequence_length(timed)
        repeated = lambda v: jnp.broadcast_to(v, (steps, *jnp.shape(v)))
        pairs = zip(bare, many, strict=True)
        bare = tuple(v if several else jax.tree.map(repeated, v) for v, several in pairs)
    return bare, any(many)


def one_step(inputs: tuple[PyTree, ...]) -> tuple[PyTree, ...]:
    """The bare inputs of a call that must be one of a single step."""
    bare, several = unwrap(inputs)
    if several:
        raise UsageError(
            "step_fn is given one step, and calls the learner with several.",
            got="MultiStepData",
            expected="learner(x), with the inputs of one step",
            do="for windows of k steps compile with vjp_method='multi-step' and pass chunk_size=k, "
            "at least 2",
        )
    return bare


def check_window(inputs: tuple[PyTree, ...], steps: int) -> None:
    """The inputs of a call by a step function that is given windows."""
    if not any(isinstance(v, MultiStepData) for v in inputs):
        raise UsageError(
            f"step_fn is given {steps} steps, and calls the learner with one.",
            got=f"vjp_method='multi-step', chunk_size={steps}",
            expected="learner(braintrace.MultiStepData(x)), and one loss for each step",
            do="where step_fn is of one step, pass window= in place of chunk_size=",
        )


def steps_together(
    learner: "ETraceAlgorithm", chunk_size: int | None, window: int | None
) -> int | None:
    """How many steps the step function is given at once; None where it is given one.

    That is so in the multi-step form alone, where `chunk_size` is another gradient: BPTT inside of
    each window. Else it is the same as `window`.
    """
    size = checked_window(chunk_size)
    return size if learner._full and window is None and size not in (None, 1) else None


def in_windows(tree: PyTree, size: int) -> PyTree:
    """Arrays with time on axis 0 as windows of `size` steps."""
    steps = sequence_length(tree)
    if steps % size:
        raise UsageError(
            "The last window would be shorter than the others.",
            got=f"{steps} steps, chunk_size={size}",
            expected="a number of steps that chunk_size divides",
            do=f"leave out the last {steps % size} step(s), or pass another chunk_size; window= "
            "takes any number of steps, and gives step_fn one at a time",
        )
    return jax.tree.map(lambda v: v.reshape(steps // size, size, *v.shape[1:]), tree)


def loss_of_one(loss: jax.ShapeDtypeStruct, size: int) -> jax.ShapeDtypeStruct:
    """The shape of one step's loss, of those of a window."""
    if loss.shape[:1] != (size,):
        raise UsageError(
            "step_fn does not return one loss for each step of its window.",
            got=f"shape {loss.shape}",
            expected=f"shape ({size},), with chunk_size={size} in the multi-step form",
            do="call learner(braintrace.MultiStepData(x)) and reduce over everything but time; "
            "where step_fn is of one step, pass window= in place of chunk_size=",
        )
    return jax.ShapeDtypeStruct(loss.shape[1:], loss.dtype)
