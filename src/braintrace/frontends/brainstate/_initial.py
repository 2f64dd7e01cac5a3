"""Initialising a module's states before it is compiled."""

import contextlib
from collections.abc import Callable
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ...core._errors import UsageError
from ._algorithm import ETraceAlgorithm
from ._states import as_before_on_error, states_of
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
        if vmap and batch_size is not None:
            brainstate.nn.vmap_init_all_states(model, axis_size=batch_size)
        elif batch_size is None:
            brainstate.nn.init_all_states(model)
        else:
            brainstate.nn.init_all_states(model, batch_size=batch_size)
    return {id(s) for s in made.get_states()}


def compile_model(
    model: brainstate.nn.Module,
    algorithm: Callable[[brainstate.nn.Module], ETraceAlgorithm],
    inputs: tuple[Any, ...],
    given: dict[str, Any],
    **analysis: Any,
) -> Any:
    """A learner of `model`, whose states are initialised; `given` may hold `batch_size`, `seed` and
    `vmap`. After an error the model is as before.
    """
    learner = algorithm(model)
    batch_size, vmap = given.get("batch_size"), given.get("vmap", False)
    sizes = {jnp.shape(v)[0] if jnp.ndim(v) else None for v in jax.tree.leaves(inputs)}
    samples = sizes.pop() if len(sizes) == 1 else None

    def attempt(batch_size: int | None) -> None:
        made = initialise(model, batch_size, vmap, given.get("seed"))
        hidden = {id(s) for s in states_of(model).values() if isinstance(s, brainstate.HiddenState)}
        alone = batch_size is None and bool(hidden) and hidden <= made  # made for one sample
        known = None if alone else ...
        learner.compile_graph(
            *inputs, vmap=vmap, mapped=made if vmap else None, lanes=known, **analysis
        )

    try:
        with as_before_on_error(model):
            attempt(samples if vmap and batch_size is None else batch_size)
    except Exception as error:
        other = samples is not None and samples != batch_size and not vmap
        if other and _succeeds(model, lambda: attempt(samples)):
            shapes = ", ".join(str(jnp.shape(v)) for v in jax.tree.leaves(inputs))
            raise UsageError(
                "The states do not have the batch size of the inputs.",
                got=f"batch_size={batch_size}, inputs of shape {shapes}",
                expected=f"batch_size={samples}",
                do=f"pass batch_size={samples}, or vmap=True for a model of one sample",
            ) from error
        raise
    return ETraceVmap(learner) if vmap else learner


class _Succeeded(Exception):
    pass


def _succeeds(model: brainstate.nn.Module, attempt: Callable[[], None]) -> bool:
    """Whether `attempt` works; the model is as before in any case."""
    try:
        with as_before_on_error(model):
            attempt()
            raise _Succeeded
    except Exception as error:
        return isinstance(error, _Succeeded)
