"""Learners of brainstate modules in files and in other processes, with their states."""

import functools
from collections.abc import Mapping
from typing import Any

import brainstate
import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ...learner import Kept, packed
from ._learner import ModuleLearner
from ._step import StepFunction

_COMPILED = "_functional", "_steps"
_OF_A_PROCESS = "_source_info", "_hooks_manager"  # what a state has that is of no other process


def pickled(learner: Any, core: ModuleLearner | None) -> Any:
    """What `__reduce__` returns for a learner: what makes it of its attributes and, where it is
    compiled, of what it was compiled of.
    """
    held = {k: v for k, v in vars(learner).items() if k not in _COMPILED}
    made = None if core is None else (core.made_of(), core.rule, core.initial)
    make = functools.partial(_made_again, type(learner), held, made)
    return packed(make, {brainstate.State: _reduced_state})


def _made_again(kind: type, held: Mapping[str, Any], made: Any) -> Any:
    learner: Any = object.__new__(kind)
    vars(learner).update(held, _functional=None, _steps=Kept(StepFunction))
    if made is not None:
        (shapes, mapped, environment, options), rule, initial = made
        x = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), shapes)
        with brainstate.environ.context(**environment):
            core = ModuleLearner(learner.model, rule, x, mapped=set(map(id, mapped)), **options)
        core.initial, learner._functional = initial, core
    return learner


def _reduced_state(state: brainstate.State) -> Any:
    if state is brainstate.random.DEFAULT:
        return _default_random, ()
    reference = state.to_state_ref()
    held = {k: v for k, v in reference.get_metadata().items() if k not in _OF_A_PROCESS}
    return _state_again, (type(state), reference.value, held)


def _state_again(kind: type, value: PyTree, held: Mapping[str, Any]) -> brainstate.State:
    new = vars(brainstate.State(None))
    return brainstate.TreefyState(
        kind, value, **{k: new[k] for k in _OF_A_PROCESS}, **held
    ).to_state()


def _default_random() -> brainstate.State:
    return brainstate.random.DEFAULT
