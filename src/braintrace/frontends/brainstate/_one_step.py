"""`OneStepMixin`: what a learner of a brainstate module does with a single step."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from jax.typing import ArrayLike
from jaxtyping import PyTree

from ...cell._arguments import Modulator
from ...learner import as_sequence, in_front, value_of

if TYPE_CHECKING:
    from ._algorithm import ETraceAlgorithm


class OneStepMixin:
    """Beside the drivers of sequences, which it calls."""

    etrace_grad: Callable[..., Any]

    @property
    def _driven(self) -> "ETraceAlgorithm":
        """The learner that takes the steps."""
        return cast("ETraceAlgorithm", self)

    def value_and_grad(
        self,
        *inputs: PyTree,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        mask: ArrayLike | None = None,
        weights: PyTree = None,
        reduction: str = "mean",
        has_aux: bool = False,
        y_target: ArrayLike | None = None,
        modulator: Modulator | None = None,
        donate: bool = False,
    ) -> PyTree:
        """One step with its gradient: `(loss, gradients)`, with `has_aux` `((loss, aux),
        gradients)`. The model's states and the traces move on.

        The numbers are those of `brainstate.transform.grad` of a loss of `learner(x)`. There the
        traces before the step are kept beside the new ones; here they are read and moved on in one
        pass, and with `donate` where they lie.

        Args:
            *inputs: the input, then what `loss_fn` takes beside the output; or what `step_fn`
                takes.
            loss_fn, step_fn, mask, weights, reduction, has_aux, y_target, modulator, donate: as in
                `etrace_grad`, without time.

        >>> import brainstate, braintrace, jax.numpy as jnp
        >>> cell = brainstate.nn.GRUCell(2, 3)
        >>> learner = braintrace.compile(cell, "d_rtrl", jnp.zeros((4, 2)), batch_size=4)
        >>> loss_fn = lambda h, y: jnp.mean((h - y) ** 2)
        >>> loss, gradients = learner.value_and_grad(
        ...     jnp.ones((4, 2)), jnp.ones((4, 3)), loss_fn=loss_fn
        ... )
        >>> sorted(gradients) == sorted(learner.param_states)
        True
        """
        rule = self._driven._rule
        how = as_sequence(rule, mask, reduction, has_aux, y_target, modulator, donate)
        how |= {"loss_fn": loss_fn, "step_fn": step_fn, "weights": weights}
        sequences = in_front("input", inputs)
        gradients, *_, info = self.etrace_grad(*sequences, return_info=True, **how)
        return value_of(info, how), gradients
