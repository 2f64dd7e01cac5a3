"""`ETraceVmap`: the learner of a model that is written for one sample."""

from typing import Any

import brainstate
from jaxtyping import PyTree

from ...core._errors import UsageError
from ._algorithm import ETraceAlgorithm
from ._sequences import SequenceDriverMixin


class ETraceVmap(SequenceDriverMixin, brainstate.nn.Vmap):
    """A learner mapped over the samples of a batch: what `compile(..., vmap=True)` returns.

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

    def __init__(self, learner: ETraceAlgorithm):
        if not isinstance(learner, ETraceAlgorithm):
            raise UsageError(
                "Not a learner.",
                got=type(learner).__name__,
                expected="a learner of a brainstate module",
                do="compile a model of one sample with vmap=True",
            )
        super().__init__(learner)

    def __reduce__(self) -> Any:
        return type(self), (self.module,)

    @property
    def _driven(self) -> ETraceAlgorithm:
        return self.module

    def update(self, *inputs: PyTree, **options: Any) -> PyTree:
        """One step of every sample: `learner(x)`, x with the batch as axis 0."""
        return self.module.update(*inputs, **options)

    __call__ = update

    def reset_state(self, batch_size: int | None = None, *, model: bool = False) -> None:
        """As `ETraceAlgorithm.reset_state`."""
        self.module.reset_state(batch_size, model=model)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "module":
            raise AttributeError(name)
        return getattr(self.module, name)
