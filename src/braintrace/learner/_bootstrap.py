"""An estimator of the later loss learns from one sequence: a program on flat lists."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from ..cell import Cell, Mask, check_samples, restarted, split, weigh, weights_of
from ..cell._samples import without_padding
from ..core._precision import narrowed
from ..core.signals import SyntheticGradient, by_sample, estimated
from ..core.step import plain_step, prelude
from ._fit import taking_gradients

Weights = list[Array]
stop = jax.lax.stop_gradient
_OPTIMISER = "an optax optimiser"


class Course(NamedTuple):
    """How it learns: the options of `train_synthetic_gradient`."""

    chunk_size: int
    ends: bool
    epochs: int
    refresh: int
    lr: float
    optimizer: Any


class Lesson(NamedTuple):
    """What it learns from: inputs (flat) and targets, a mask and marks of resets (T, B) or None,
    and the values that a reset goes back to.
    """

    xs: list[Array]
    targets: Sequence[PyTree]
    mask: Mask | None
    marks: Bool[Array, "T B"] | None
    initial: list[Array]


def learn_estimate(
    cell: Cell,
    resets: Sequence[int],
    loss_fn: Callable[..., PyTree],
    estimator: SyntheticGradient,
    course: Course,
    params: list[Array],
    carry: list[Array],
    weights: Weights,
    lesson: Lesson,
) -> tuple[Weights, Float[Array, " epochs"]]:
    """(the weights of the estimator, the mean squared error of each epoch)."""
    graph = (cell.plain or cell).graph
    carry, leaves = narrowed(list(carry), list(graph.carry)), estimated(cell.graph)
    ready, x_axes = prelude(graph, params), [graph.batch_axis(v) for v in graph.xs]
    axes = [graph.leaf_axis(k) if k in resets else None for k in range(len(carry))]
    size, steps = course.chunk_size, lesson.xs[0].shape[0]
    first = jax.tree.map(lambda v: v[0], lesson.targets)
    shape = jax.eval_shape(lambda *at: _loss(cell, loss_fn, *at), cell.out.leaves, first)
    counts = weights_of(lesson.mask, shape, steps, "sum")

    def rows(carry: Sequence[Array]) -> Float[Array, "B n"]:
        """What is estimated of a carry, sample by sample."""
        return by_sample(graph, leaves, [carry[k] for k in leaves]).astype(weights[0].dtype)

    def single(carry: list[Array], at: PyTree) -> tuple[list[Array], Float[Array, ""]]:
        xs, targets, marks, weight = at
        if marks is not None:
            carry = restarted(lesson.initial, carry, marks, axes)
        if lesson.mask is not None:
            xs = without_padding(xs, weight, x_axes)
        carry, outs = plain_step(graph, ready, carry, xs)
        return carry, weigh(_loss(cell, loss_fn, outs, targets), weight)

    def followed(hidden: Weights, carry: list[Array], copy: Weights, at: PyTree) -> PyTree:
        """The loss from an entry on, as the copy sees it, and the carry at the exit."""
        held = dict(zip(leaves, hidden, strict=True))
        start = [held.get(k, v) for k, v in enumerate(carry)]
        chunk, goes_on = at
        end, losses = jax.lax.scan(single, start, chunk)
        state = rows(end)
        later = (stop(estimator(copy, state)) * state).sum()
        return losses.sum() + jnp.where(goes_on, later, 0), end

    def error(weights: Weights, carry: list[Array], target: Float[Array, "B n"]) -> PyTree:
        away = estimator(weights, rows(carry)) - stop(target)
        return (away**2).sum(1).mean() / 2, (away**2).mean()

    def learned(
        weights: Weights, tuner: PyTree, carry: list[Array], target: Float[Array, "B n"]
    ) -> PyTree:
        slopes, squared = jax.grad(error, has_aux=True)(weights, carry, target)
        if course.optimizer is None:
            moves = [-course.lr * g for g in slopes]
        else:
            with taking_gradients(_OPTIMISER):
                moves, tuner = course.optimizer.update(slopes, tuner, weights)
        return [w + m.astype(w.dtype) for w, m in zip(weights, moves, strict=True)], tuner, squared

    def of_chunk(state: PyTree, at: PyTree) -> PyTree:
        weights, copy, tuner, carry = state
        chunk, goes_on, renewed = at
        copy = [jnp.where(renewed, w, c) for w, c in zip(weights, copy, strict=True)]
        hidden = [carry[k] for k in leaves]
        pull = jax.grad(followed, has_aux=True)
        slopes, end = pull(hidden, carry, copy, (chunk, goes_on))
        target = by_sample(graph, leaves, slopes).astype(weights[0].dtype)
        weights, tuner, squared = learned(weights, tuner, carry, target)
        return (weights, copy, tuner, end), squared

    chunks = steps // size
    timed = jax.tree.map(
        lambda v: v.reshape(chunks, size, *v.shape[1:]),
        (lesson.xs, lesson.targets, lesson.marks, counts),
    )
    numbers = jnp.arange(chunks)
    goes_on = (numbers < chunks - 1) | (not course.ends)

    def epoch(state: PyTree, number: Array) -> PyTree:
        weights, copy, tuner = state
        renewed = (number * chunks + numbers) % course.refresh == 0
        began = weights, copy, tuner, carry
        (weights, copy, tuner, end), squared = jax.lax.scan(
            of_chunk, began, (timed, goes_on, renewed)
        )
        if course.ends:
            weights, tuner, last = learned(weights, tuner, end, jnp.zeros_like(rows(end)))
            squared = jnp.append(squared, last)
        return (weights, copy, tuner), squared.mean()

    with taking_gradients(_OPTIMISER):
        tuner = None if course.optimizer is None else course.optimizer.init(weights)
    (weights, *_), errors = jax.lax.scan(
        epoch, (weights, weights, tuner), jnp.arange(course.epochs)
    )
    return weights, errors


def _loss(
    cell: Cell, loss_fn: Callable[..., PyTree], outs: Sequence[Array], targets: PyTree
) -> Float[Array, "*B"]:
    """The loss of one step."""
    loss = split(loss_fn(cell.out.unflatten(outs), *targets), False, "loss_fn")[0]
    check_samples(loss, cell.graph.batch_size)
    return loss
