"""The functional learner of an NNX module, and the Variables in which its state is held."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

from ...cell import UserStep
from ...learner import FunctionLearner
from ...reports import Path
from ._module import SplitModule


class HiddenCarry(nnx.Variable):
    """The carry of a learner's model."""


class EligibilityTrace(nnx.Variable):
    """The eligibility traces of a learner: a tree of arrays, laid out by the algorithm's
    carrier.
    """


class Core(FunctionLearner):
    """The learner of a module's cell."""

    _called = "model"

    def user_step(self, step_fn: Callable[..., PyTree], has_aux: bool) -> UserStep:
        """`step_fn(model, call, *slices)` as a step of the cell."""
        return self._functional.user_step(step_fn, has_aux)

    given: Mapping[str, Any]  # to `compile`: what the model's learner is made of again
    options: Mapping[str, Any]

    @property
    def _functional(self) -> SplitModule:
        return self.function.__self__  # type: ignore[attr-defined]

    def _named(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        return self._functional.paths


def made_again(kind: Callable[..., Any], made: Any, now: Any) -> Any:
    """The learner of what was pickled, where it was."""
    model, rule, shapes, given, options = made
    inputs = jax.tree.map(lambda v: jnp.zeros(v.shape, v.dtype), shapes)
    learner = kind(model, rule, inputs, given, **options)
    learner._core.initial, carry, traces, steps = now
    learner.carry.set_value(carry)
    learner.traces.set_value(traces)
    learner.steps.set_value(steps)
    return learner
