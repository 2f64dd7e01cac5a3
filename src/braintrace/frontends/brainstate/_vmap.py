"""`ETraceVmap`: the learner of a model that is written for one sample."""

import functools
from collections.abc import Callable
from typing import Any

import brainstate
from jaxtyping import PyTree

from ...core._domains import known
from ...core._errors import UsageError
from ...learner import Key
from ._algorithm import ETraceAlgorithm
from ._sequences import SequenceDriverMixin

_MAPPING = "in_axes", "out_axes", "vmap_states", "vmap_out_states", "axis_name", "axis_size"


class ETraceVmap(SequenceDriverMixin, brainstate.nn.Vmap):
    """A learner mapped over the samples of a batch: what `compile(..., vmap=True)` returns.

    With options of `brainstate.nn.Vmap` (`vmap_states`, `in_axes`, ...) it maps a learner that was
    compiled for one sample, under `vmap_new_states`; drivers then go step by step.

    It is called with a batch, axis 0 of every input, and has the learner's attributes (`report`,
    `graph`, `model`, `reset_state`, ...). Each sample has its own states and traces; the gradients
    of the parameters are those of the loss over the batch.

    Attributes:
        module: the learner. It takes batches too: the mapping is part of what it compiled, so that
            windows, masks and resets work as for a batched model. (In the PyPI package braintrace
            `module` takes one sample.)

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> learner = braintrace.compile(
    ...     brainstate.nn.GRUCell(3, 4), "d_rtrl", jnp.zeros((5, 3)), batch_size=5, vmap=True
    ... )
    >>> isinstance(learner, brainstate.nn.Vmap), learner(jnp.ones((5, 3))).shape
    (True, (5, 4))
    """

    __module__ = "braintrace"

    module: ETraceAlgorithm

    def __init__(self, learner: ETraceAlgorithm, **mapping: Any):
        if not isinstance(learner, ETraceAlgorithm):
            raise UsageError(
                "Not a learner.",
                got=type(learner).__name__,
                expected="a learner of a brainstate module",
                do="compile a model of one sample with vmap=True",
            )
        known("ETraceVmap", mapping, _MAPPING)
        super().__init__(learner, **mapping)
        self._mapping = mapping

    def __reduce__(self) -> Any:
        return functools.partial(type(self), **self._mapping), (self.module,)

    @property
    def _driven(self) -> ETraceAlgorithm:
        return self.module

    def update(self, *inputs: PyTree, **options: Any) -> PyTree:
        """One step of every sample: `learner(x)`, x with the batch as axis 0."""
        if self._mapping:
            return super().update(*inputs, **options)
        return self.module.update(*inputs, **options)

    __call__ = update

    def etrace_evolve(
        self, *sequences: PyTree, step_fn: Callable[..., PyTree] | None = None, **options: Any
    ) -> PyTree:
        """As `ETraceAlgorithm.etrace_evolve`."""
        mapped = self.update if self._mapping else None
        return super().etrace_evolve(*sequences, step_fn=step_fn or mapped, **options)

    def reset_state(
        self, batch_size: int | None = None, *, model: bool = False, key: Key | None = None
    ) -> None:
        """As `ETraceAlgorithm.reset_state`."""
        self.module.reset_state(batch_size, model=model, key=key)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "module":
            raise AttributeError(name)
        return getattr(self.module, name)
