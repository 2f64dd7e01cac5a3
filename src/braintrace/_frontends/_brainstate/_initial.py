"""Initialising a module's states before it is compiled."""

import contextlib
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ..._errors import UsageError, problem
from ._algorithm import ETraceAlgorithm


def initialise(model: brainstate.nn.Module, batch_size: int | None, vmap: bool, seed: int | None) -> set[int]:
    """Call `init_state` of every part of the model; the ids of the states that have one value per sample (with `vmap`)."""
    if vmap and batch_size is None:
        raise UsageError(
            problem("vmap=True needs a batch size.", got="batch_size=None", expected="the number of samples",
                    do="pass batch_size=x.shape[0]")
        )  # fmt: skip
    seeded = contextlib.nullcontext() if seed is None else brainstate.random.seed_context(seed)
    with seeded, brainstate.catch_new_states() as made:
        if vmap:
            brainstate.nn.vmap_init_all_states(model, axis_size=batch_size)
        elif batch_size is None:
            brainstate.nn.init_all_states(model)
        else:
            brainstate.nn.init_all_states(model, batch_size=batch_size)
    return {id(s) for s in made.get_states()} if vmap else set()


def compile_module(
    learner: ETraceAlgorithm, example_inputs: tuple[Any, ...], *, batch_size: int | None, seed: int | None, vmap: bool,
    **analysis: Any,
) -> None:  # fmt: skip
    """Initialise the states of a learner's model and compile it."""
    if vmap and batch_size is None:
        sizes = {jnp.shape(v)[0] for v in jax.tree.leaves(example_inputs) if jnp.ndim(v)}
        batch_size = sizes.pop() if len(sizes) == 1 else None
    mapped = initialise(learner.model, batch_size, vmap, seed)
    learner.compile_graph(*example_inputs, vmap=vmap, mapped=mapped if vmap else None, **analysis)
