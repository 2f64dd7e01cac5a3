"""What a user says about the batch: its size, its axes, or that there is none."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core._compat import is_key
from ..core._domains import flag, whole
from ..core._errors import UsageError
from ..core.analysis import BatchAxis, BatchClaim
from ._samples import common_size


@dataclasses.dataclass(frozen=True)
class BatchSpec:
    """What is known about the batch before the analysis.

    Attributes:
        size: the number of samples; None where there is no batch.
        axes: for each leaf of the carry, then of the input, its batch axis, or None for a leaf that
            the samples share; None where only the size is said.
        said: whether the user said it; else it is a front end's convention, which the model may
            refute.
    """

    size: int | None = None
    axes: tuple[int | None, ...] | None = None
    said: bool = True


def said_batch(given: Mapping[str, Any], carry: PyTree, x: PyTree) -> BatchSpec | None:
    """The options `batch`, `batch_size`, `batch_axes` and `vmap` of `compile`; None where nothing
    is said. With `vmap` a model of one sample is mapped over axis 0 of every leaf.
    """
    if flag("vmap", given.get("vmap", False)):
        if said := [k for k in ("batch", "batch_size", "batch_axes") if k in given]:
            raise UsageError(
                "With vmap=True the batch is axis 0 of the carry and of the inputs.",
                got=", ".join(said),
                expected="none of batch, batch_size and batch_axes",
                do="leave it out, or write the model for a batch and leave vmap out",
            )
        return _with_axes(0, carry, x)
    size, axes = given.get("batch_size"), given.get("batch_axes")
    if "batch" in given:
        if given["batch"] is not None:
            raise UsageError(
                "Invalid batch.",
                got=repr(given["batch"]),
                expected="None: the model has no batch",
                do="say the size of a batch with batch_size, its axes with batch_axes",
            )
        if size is not None or axes is not None:
            raise UsageError(
                "There is a batch or there is none.",
                got="batch=None with batch_size or batch_axes",
                expected="one of them",
                do="leave batch out for a model that takes a batch",
            )
        return BatchSpec()
    if size is not None:
        whole("batch_size", size)
    if axes is not None:
        return _with_axes(axes, carry, x, size)
    if size is not None and not any(v[:1] == (size,) for v in _shapes(carry)):
        raise UsageError(
            "No array of the carry has the size of the batch as axis 0.",
            got=f"batch_size={size}, a carry of shapes {_shapes(carry)}",
            expected=f"arrays of shape ({size}, ...)",
            do="pass a carry for the whole batch; for another axis than 0 say batch_axes",
        )
    return None if size is None else BatchSpec(size)


def claim_of(
    batch: BatchSpec | None, carry: PyTree, x: PyTree, numbers: Sequence[int]
) -> BatchClaim | None:
    """What the analysis starts from: what is said, else the convention that the batch is axis 0 of
    every array of the carry or, where these differ, of the input. `numbers`: for each leaf of the
    engine's carry, that of the user's.
    """
    size = common_size(carry) or common_size(x) if batch is None else batch.size
    if size is None:
        return None
    own, count = len(jax.tree.leaves(carry)), len(jax.tree.leaves((carry, x)))
    axes = batch.axes if batch is not None and batch.axes else (...,) * count
    leaves = tuple(axes[k] for k in numbers)
    return BatchClaim(size, leaves, tuple(axes[own:]), said=batch is not None and batch.said)


def spread_axes(what: str, axes: PyTree, tree: PyTree) -> list[int | None]:
    """The axis of each leaf of `tree`."""
    return [axis for _, axis, _ in _leaves(what, axes, tree)]


def reset_axes(axes: PyTree, carry: PyTree, samples: int) -> list[BatchAxis | None]:
    """Where each leaf of `carry` has the samples that a reset marks: as `axes` says (a number, or
    what the analysis has found), else axis 0 of the arrays that have their number there.
    """
    if axes is None:
        axes = jax.tree.map(
            lambda v: 0 if v.shape[:1] == (samples,) and not is_key(v.dtype) else None, carry
        )
        if not jax.tree.leaves(axes):
            raise UsageError(
                "No array of the carry has the samples of reset.",
                got=f"{samples} samples, a carry of shapes {_shapes(carry)}",
                expected=f"arrays of shape ({samples}, ...)",
                do="say where the samples are with batch_axes=",
            )
    found: list[BatchAxis | None] = []
    for name, axis, shape in _leaves("carry", axes, carry):
        if axis is not None and not isinstance(axis, BatchAxis):
            axis = BatchAxis(_checked_axis(name, axis, shape), samples)
            if shape[axis.dim] != samples:
                raise UsageError(
                    f"The batch axis of {name} does not have the size of the batch.",
                    got=f"axis {axis.dim} of an array of shape {shape}",
                    expected=f"the {samples} samples of reset",
                )
        found.append(axis)
    return found


def _with_axes(axes: PyTree, carry: PyTree, x: PyTree, size: int | None = None) -> BatchSpec:
    pair = axes if isinstance(axes, tuple | list) else (axes, axes)
    if len(pair) != 2:
        raise UsageError(
            "Invalid batch_axes.",
            got=repr(axes),
            expected="one axis for every array, or a pair (axes of the carry, axes of the input)",
        )
    found: list[int | None] = []
    sizes = {} if size is None else {size: "batch_size"}
    for name, axis, shape in (*_leaves("carry", pair[0], carry), *_leaves("input", pair[1], x)):
        if axis is not None:
            axis = _checked_axis(name, axis, shape)
            sizes.setdefault(shape[axis], f"axis {axis} of {name}")
        found.append(axis)
    if len(sizes) != 1:
        said = ", ".join(f"{n} by {where}" for n, where in sizes.items())
        raise UsageError(
            "The batch has no size." if not sizes else "The batch has several sizes.",
            got=said or "batch_axes without an axis",
            expected="axes of one size",
            do="say batch=None for a model without a batch; give shared arrays the axis None",
        )
    return BatchSpec(next(iter(sizes)), tuple(found))


def _leaves(what: str, axes: PyTree, tree: PyTree) -> list[tuple[str, PyTree, tuple[int, ...]]]:
    """(name, axis, shape) of each leaf; `axes` is a tree like `tree`, or one that stands for it."""
    is_none = lambda v: v is None
    try:
        spread = jax.tree.broadcast(axes, tree, is_leaf=is_none)
    except ValueError as error:
        raise UsageError(
            f"batch_axes does not fit the {what}.",
            got=repr(axes),
            expected=f"an axis, None, or a tree of them like {jax.tree.structure(tree)}",
        ) from error
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_none)[0]
    flat = jax.tree.leaves(spread, is_leaf=is_none)
    return [
        (f"{what}{jax.tree_util.keystr(p)}", axis, jnp.shape(v))
        for (p, v), axis in zip(paths, flat, strict=True)
        if v is not None
    ]


def _checked_axis(name: str, axis: Any, shape: tuple[int, ...]) -> int:
    whole = isinstance(axis, int) and not isinstance(axis, bool)
    if not whole or not -len(shape) <= axis < len(shape):
        raise UsageError(
            f"Invalid batch axis of {name}.",
            got=repr(axis),
            expected=f"an axis of an array of shape {shape}, or None where the samples share it",
        )
    return axis % len(shape)


def _shapes(tree: PyTree) -> list[tuple[int, ...]]:
    return [jnp.shape(v) for v in jax.tree.leaves(tree)]
