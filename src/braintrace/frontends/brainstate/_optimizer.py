"""Optimisers at the front end of brainstate: those that hold the parameters themselves, and those
of optax, whose state the learner keeps.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import brainstate
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ...core._compat import is_differentiable, is_traced
from ...core._errors import UsageError
from ...learner import taking_gradients

if TYPE_CHECKING:
    from ._algorithm import ETraceAlgorithm

#: `(gradients) -> None`: the parameters learn.
Update = Callable[[PyTree], None]


def update_of(
    learner: "ETraceAlgorithm",
    optimizer: Any,
    states: Sequence[brainstate.State],
    together: Callable[[list[PyTree]], PyTree],
) -> Update:
    """How `optimizer` updates `states`, whose gradients are put together by `together`."""
    if not callable(getattr(optimizer, "update", None)):
        raise UsageError(
            "This is no optimiser.",
            got=type(optimizer).__name__,
            expected="an optax optimiser, or an object with update(gradients)",
            do="pass optax.adam(1e-3), say, or an optimiser of braintools.optim",
        )
    if getattr(optimizer, "_fields", ())[:2] != ("init", "update"):

        def registered(gradients: PyTree) -> None:
            with taking_gradients("an optimiser with the model's parameters registered"):
                optimizer.update(gradients)

        return registered
    values = lambda: together([_of_optax(s.value) for s in states])
    held = learner._optimizers
    if optimizer not in held:
        if any(map(is_traced, jax.tree.leaves(values()))):
            raise UsageError(
                "The state of an optax optimiser cannot be made inside a transformation.",
                got="its first call under jit, or another transformation",
                expected="a first call outside, which makes the state",
                do="call etrace_fit once outside of it, or let an optimiser of braintools.optim "
                "hold the parameters",
            )
        held[optimizer] = brainstate.LongTermState(optimizer.init(values()))
    moments = held[optimizer]

    def update(gradients: PyTree) -> None:
        before = values()
        leaves = jax.tree.leaves(gradients)
        with taking_gradients("an optax optimiser for the parameters that are trained"):
            given = jax.tree.structure(before).unflatten(leaves)
            updates, moments.value = optimizer.update(given, moments.value, before)
        moved = jax.tree.map(lambda p, u: (p + u).astype(p.dtype), before, updates)
        new = iter(jax.tree.leaves(moved))
        for state in states:
            put = lambda v: next(new) if is_differentiable(jnp.result_type(v)) else v
            state.value = jax.tree.map(put, state.value)

    return update


@contextlib.contextmanager
def unchanged_on_error(learner: "ETraceAlgorithm") -> Iterator[None]:
    """After an error inside, the states of the learner and of its model are as before."""
    states = *learner.functional.module.states, *learner._own_states
    before = [(s, s.value) for s in states]
    try:
        yield
    except Exception:
        for state, value in before:
            state.value = value
        raise


def _of_optax(value: PyTree) -> PyTree:
    """A parameter's value, without units, and with None for what has no gradient."""
    leaves, structure = jax.tree.flatten(value)
    live = [v if is_differentiable(jnp.result_type(v)) else None for v in leaves]
    return structure.unflatten(live)
