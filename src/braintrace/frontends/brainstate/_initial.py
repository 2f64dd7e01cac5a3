"""Initialising a module's states before it is compiled."""

import contextlib
import itertools
from collections.abc import Callable
from types import EllipsisType
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ...cell import MisfitError, common_size, first_steps, whole_sequence
from ...core._domains import arrays, key_or_number, whole
from ...core._errors import UsageError
from ._algorithm import ETraceAlgorithm
from ._states import Axes, as_before, lent, named_states, states_of
from ._vmap import ETraceVmap


def initialise(
    model: brainstate.nn.Module, batch_size: int | None, vmap: bool, seed: int | None
) -> set[int]:
    """Call `init_state` of every part of the model; the ids of the states that it made."""
    if vmap and batch_size is None:
        raise UsageError(
            "vmap=True needs a batch size.",
            got="batch_size=None",
            expected="the number of samples",
            do="pass batch_size=x.shape[0]",
        )
    seeded = contextlib.nullcontext() if seed is None else brainstate.random.seed_context(seed)
    with seeded, brainstate.catch_new_states() as made:
        if vmap:
            brainstate.nn.vmap_init_all_states(model, axis_size=batch_size or 0)
        else:
            size: dict[str, Any] = {} if batch_size is None else {"batch_size": batch_size}
            brainstate.nn.init_all_states(model, **size)
    return {id(s) for s in made.get_states()}


def compile_model(
    model: brainstate.nn.Module,
    algorithm: Callable[[brainstate.nn.Module], ETraceAlgorithm],
    inputs: tuple[PyTree, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> ETraceAlgorithm | ETraceVmap:
    """A learner of `model`, whose states are initialised; `given` may hold `batch_size`, `seed`,
    `vmap` and `axis_name`. After an error the model is as before.
    """
    learner = algorithm(model)
    batch_size, vmap = given.get("batch_size"), given.get("vmap", False)
    if batch_size is not None:
        batch_size = whole("batch_size", batch_size)
    if (seed := given.get("seed")) is not None:
        key_or_number("seed", seed)
    samples = common_size(arrays("example input", inputs))

    def attempt(batch_size: int | None, inputs: tuple[PyTree, ...] = inputs) -> None:
        axes = None if vmap or batch_size is None else batch_axes(model, batch_size, inputs)
        made = initialise(model, batch_size, vmap, given.get("seed"))
        hidden = {id(s) for s in states_of(model).values() if isinstance(s, brainstate.HiddenState)}
        alone = batch_size is None and bool(hidden) and hidden <= made  # made for one sample
        learner.compile_graph(
            *inputs,
            vmap=vmap,
            axis_name=given.get("axis_name"),
            mapped=made if vmap else None,
            lanes=batch_size if axes else None if alone else ...,
            axes=axes,
            **analysis,
        )

    try:
        with as_before(model, after_success=False):
            attempt(samples if vmap and batch_size is None else batch_size)
    except Exception as error:
        told = samples in (None, batch_size) or vmap
        if not told and _succeeds(model, lambda: attempt(samples)):
            shapes = ", ".join(str(jnp.shape(v)) for v in jax.tree.leaves(inputs))
            raise UsageError(
                "The states do not have the batch size of the inputs.",
                got=f"batch_size={batch_size}, inputs of shape {shapes}",
                expected=f"batch_size={samples}",
                do=f"pass batch_size={samples}, or vmap=True for a model of one sample",
            ) from error
        first = first_steps(inputs) if isinstance(error, MisfitError) else None
        if first is not None and _succeeds(model, lambda: attempt(batch_size, first)):
            raise whole_sequence(inputs, first) from error
        raise
    return ETraceVmap(learner) if vmap else learner


def batch_axes(
    model: brainstate.nn.Module, batch_size: int, inputs: tuple[PyTree, ...]
) -> dict[str, Axes] | None:
    """For each state the axes of its leaves along which the samples lie, None for a leaf that they
    share, `...` where that cannot be told.

    The axis is the one whose size follows the batch size when the states are initialised for
    another one. A leaf whose shape stays is shared if the step takes the other batch size, too:
    else its size may be written into the model. None where no state follows, or where that fails.
    """
    sizes = batch_size, batch_size + 1
    try:
        one, other = (_shapes(model, size) for size in sizes)
    except Exception:  # whatever the user's init_state raises: then nothing is known
        return None
    try:
        more = jax.tree.map(lambda v: _with_samples(v, *sizes), inputs)
        shared = None if _shapes(model, batch_size + 1, more) == other else ...
    except Exception:  # what a step raises at a size that it was not written for
        shared = ...
    axes = {
        name: tuple(_axis(a, b, sizes, shared) for a, b in zip(shapes, other[name], strict=True))
        for name, shapes in one.items()
        if len(shapes) == len(other.get(name, ()))
    }
    told = any(isinstance(axis, int) for leaves in axes.values() for axis in leaves)
    return axes if told else None


def _shapes(
    model: brainstate.nn.Module, size: int, inputs: tuple[PyTree, ...] = ()
) -> dict[str, list[tuple[int, ...]]]:
    """The shapes of every state's leaves when they are initialised for `size` samples, with inputs
    after a step; the model is as before.
    """

    def look(*x: PyTree) -> None:
        brainstate.nn.init_all_states(model, batch_size=size)
        if x:
            model(*x)
        for name, state in named_states(model).items():
            found[name] = [jnp.shape(v) for v in jax.tree.leaves(state.value)]

    found: dict[str, list[tuple[int, ...]]] = {}
    with lent(), as_before(model):
        jax.eval_shape(look, *inputs)
    return found


def _with_samples(v: ArrayLike, before: int, after: int) -> jax.ShapeDtypeStruct:
    shape = jnp.shape(v)
    changed = (after, *shape[1:]) if shape[:1] == (before,) else shape
    return jax.ShapeDtypeStruct(changed, jnp.result_type(v))


def _axis(
    one: tuple[int, ...],
    other: tuple[int, ...],
    sizes: tuple[int, int],
    shared: EllipsisType | None,
) -> int | EllipsisType | None:
    if one == other:
        return shared
    pairs = enumerate(itertools.zip_longest(one, other))
    differ = {k: pair for k, pair in pairs if pair[0] != pair[1]}
    return next(iter(differ)) if list(differ.values()) == [sizes] else ...


def _succeeds(model: brainstate.nn.Module, attempt: Callable[[], None]) -> bool:
    """Whether `attempt` works; the model is as before in any case."""
    with as_before(model), contextlib.suppress(Exception):
        attempt()
        return True
    return False
