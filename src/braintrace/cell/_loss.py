"""What the loss of a step must be: a floating-point scalar, or one value for each sample."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import PyTree

from ..core._compat import is_key
from ..core._domains import array, described, flag
from ..core._errors import UsageError
from ..core.analysis import BatchAxis, CellGraph, axes_of_results, stays_apart
from ..core.jaxpr import Atom, ControlFlowPolicy, stage

_OPAQUE = ControlFlowPolicy(cond="opaque")


def split(result: Any, has_aux: bool, name: str = "step_fn") -> tuple[Any, PyTree]:
    """(loss, aux) of what a loss function or a step (`name`) returned."""
    if flag("has_aux", has_aux) and not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise UsageError(
            "With has_aux, the loss comes in a pair.",
            got=type(result).__name__,
            expected="(loss, aux)",
            do="return the loss and a tree of arrays, or leave has_aux out",
        )
    loss, aux = result if has_aux else (result, None)
    if (unit := getattr(loss, "unit", None)) is not None:
        raise UsageError(
            "The loss has a unit.",
            got=str(unit),
            expected="a plain number",
            do="divide by a scale, as in jnp.square((out / brainunit.mV))",
        )
    try:
        loss = loss if isinstance(loss, jax.ShapeDtypeStruct) else array("loss", loss)
    except UsageError:
        raise _no_loss(name, described(loss), has_aux) from None
    if not jnp.issubdtype(loss.dtype, jnp.floating):
        raise _no_loss(name, f"{loss.dtype}{list(loss.shape)}", has_aux, loss.dtype)
    return loss, aux


def _no_loss(name: str, got: str, has_aux: bool, dtype: DTypeLike | None = None) -> UsageError:
    do = "return the loss of the step" + "; pass has_aux=True to return (loss, aux)" * (not has_aux)
    if dtype is not None and not is_key(dtype):
        is_complex = jnp.issubdtype(dtype, jnp.complexfloating)
        do = "take its real part or its abs" if is_complex else "a count has no gradient: return "
        do += "" if is_complex else "a differentiable loss, and the count beside it, with has_aux"
    return UsageError(
        f"{name} does not return a loss.",
        got=got,
        expected="a floating-point scalar, or one value per sample",
        do=do,
    )


def check_samples(loss: jax.ShapeDtypeStruct, samples: int | None) -> None:
    """The loss of a step is a scalar or has a value for each sample; where their number is not
    known, any vector will do.
    """
    several, vector = len(loss.shape) > 1, "" if samples is None else f", shape ({samples},)"
    if several or (loss.shape and samples not in (None, *loss.shape)):
        problem = "has too many axes" if several else "is not one of samples"
        unsaid = "; where axis 0 of the carry is none of samples, say batch=None to compile"
        raise UsageError(
            f"The loss of a step {problem}.",
            got=f"shape {loss.shape}",
            expected=f"a scalar, or one value per sample{vector}",
            do="reduce it over everything but the samples" + unsaid * (not several),
        )


def check_axis(
    graph: CellGraph,
    loss_of: Callable[..., PyTree],
    outs: Sequence[jax.ShapeDtypeStruct],
    *given: PyTree,
) -> None:
    """Refuse a loss of one value per sample, `loss_of(outs, *given)`, whose values are those of
    another axis of the outputs, as in `out.mean(0)` where there are as many outputs as samples.

    It is refused where that is proven: where the batch analysis, asked for the other axis instead
    of the samples, finds it in the loss, and does not find the samples. A loss that mixes axes in
    some way of its own (the diagonal of `z @ z.T`) is taken as it is.
    """
    samples, own = graph.batch_size, [graph.batch_axis(v) for v in graph.outs]
    others = [
        [k for k, n in enumerate(v.shape) if n == samples and axis is not None and k != axis.dim]
        for v, axis in zip(outs, own, strict=True)
    ]
    if samples is None or not any(others):
        return  # shapes tell
    leaves, structure = jax.tree.flatten(given)
    count = len(outs)

    def flat(*values: jax.Array) -> list[jax.Array]:
        return [loss_of(values[:count], *structure.unflatten(values[count:]))]

    avals = [*outs, *leaves]
    program, _ = stage(flat, avals, [False] * len(avals), _OPAQUE)

    def leads(axes: Sequence[BatchAxis | None]) -> bool:
        """Whether these axes of the outputs are axis 0 of the loss."""
        pairs = zip(program.inputs, axes, strict=False)
        claimed: dict[Atom, BatchAxis] = {v: a for v, a in pairs if a is not None}
        (found,) = axes_of_results(program, claimed)
        return found == BatchAxis(0, samples)

    if leads(own):
        return
    for k, dims in enumerate(others):
        for dim in dims:
            if leads([BatchAxis(dim, samples) if n == k else None for n in range(count)]):
                raise UsageError(
                    "The loss of a step is not one of samples.",
                    got=f"values along axis {dim} of an output of shape {outs[k].shape}",
                    expected="a scalar, or one value per sample",
                    do="reduce it over everything but the samples",
                )


def apart(
    graph: CellGraph, loss_fn: Callable[..., PyTree], outs: PyTree, targets: PyTree, has_aux: bool
) -> tuple[jax.ShapeDtypeStruct, list[int | None], list[int | None], Any] | None:
    """For a loss of one value per sample that is proven to be computed sample by sample: its shape,
    the axis of the samples, or None, in each leaf of the targets of a step and of what the loss
    returns beside it, and the structure of the latter. `outs` and `targets` are shapes.

    A target is taken to have its samples on axis 0 where it has as many elements there, and the
    proof fails where that is not so.
    """
    samples, returned = graph.batch_size, []
    leaves, structure = jax.tree.flatten((outs, targets))
    count = len(jax.tree.leaves(outs))

    def flat(*values: jax.Array) -> list[jax.Array]:
        outs, targets = structure.unflatten(values)
        loss, aux = split(loss_fn(outs, *targets), has_aux, "loss_fn")
        returned.append(jax.tree.structure(aux))
        return [loss, *jax.tree.leaves(aux)]

    program, _ = stage(flat, leaves, [False] * len(leaves), _OPAQUE)
    of_outs = [graph.batch_axis(v) for v in graph.outs]
    of_targets = [
        BatchAxis(0, samples) if samples and v.shape[:1] == (samples,) else None
        for v in leaves[count:]
    ]
    pairs = zip(program.inputs, [*of_outs, *of_targets], strict=True)
    found = stays_apart(program, {v: axis for v, axis in pairs if axis is not None})
    if found is None:
        return None
    loss = program.outputs[0]
    axes = [found.axes.get(v) for v in program.outputs]
    if axes[0] != BatchAxis(0, samples or 0) or not all(a is None or a.is_plain for a in axes):
        return None
    dims = lambda axes: [None if a is None else a.dim for a in axes]
    shape = jax.ShapeDtypeStruct(loss.shape, loss.dtype)
    return shape, dims(of_targets), dims(axes[1:]), returned[-1]
