"""A single step and its gradient: a sequence of one step, said without the axis of time."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ..cell import check_loss, reduced
from ..cell._arguments import Modulator
from ..core._domains import array
from ..core.engine import Rule
from ._objective import Target
from ._state import Info, State


def in_front(what: str, tree: PyTree) -> PyTree:
    """Arrays of one step as those of a sequence."""
    return jax.tree.map(lambda v: array(what, v)[None], tree)


def as_sequence(
    rule: Rule,
    mask: ArrayLike | None,
    reduction: str,
    has_aux: bool,
    y_target: ArrayLike | None,
    modulator: Modulator | None,
    donate: bool,
) -> dict[str, Any]:
    """Options of `value_and_grad` as those of `etrace_grad`."""
    if rule.target_timing != "sequence-end":  # where a target is one of the sequence
        y_target = in_front("y_target", y_target)
    return {
        "mask": in_front("mask", mask),
        "reduction": reduction,
        "has_aux": has_aux,
        "y_target": y_target,
        "modulator": in_front("modulator", modulator),
        "donate": donate,
        "window": 1,
    }


def value_of(info: Info, options: Mapping[str, Any]) -> PyTree:
    """The reduced loss of a step; with `has_aux` (loss, aux). `options`: of `etrace_grad`."""
    loss = reduced(info.losses, options["mask"], options["reduction"])
    return (loss, jax.tree.map(lambda v: v[0], info.aux)) if options["has_aux"] else loss


class OneStep:
    """What a functional learner does with a single step."""

    rule: Rule
    etrace_grad: Callable[..., tuple[PyTree, State | None, Info]]
    _called: str

    def value_and_grad(
        self,
        params: PyTree,
        state: State,
        x: PyTree,
        *targets: PyTree,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        mask: ArrayLike | None = None,
        reduction: str = "mean",
        has_aux: bool = False,
        y_target: Target = None,
        modulator: Modulator | None = None,
        donate: bool = False,
    ) -> tuple[PyTree, PyTree, State]:
        """One step with its gradient: `(loss, gradients, new state)`, with `has_aux` `((loss, aux),
        gradients, new state)`.

        The numbers are those of `jax.value_and_grad` of a loss of `update`. There the traces before
        the step are read after it, and are kept beside the new ones; here they are read and moved
        on in one pass, and where they lie, if the state is donated (`donate`, or `donate_argnums`
        of the `jax.jit` around it). For large traces that is some times as fast.

        Args:
            params, state: as for `etrace_grad`.
            x: the input of the step.
            *targets: handed to `loss_fn`.
            loss_fn, step_fn, mask, reduction, has_aux, y_target, modulator, donate: as in
                `etrace_grad`, without time.

        >>> import jax.numpy as jnp
        >>> import braintrace
        >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
        >>> w, h, x = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((1, 2))
        >>> learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h)
        >>> state, loss_fn = learner.init(w, h), lambda h: (h**2).sum(-1)
        >>> for _ in range(2):
        ...     loss, gradients, state = learner.value_and_grad(
        ...         w, state, x, loss_fn=loss_fn, donate=True
        ...     )
        >>> float(loss), float(gradients[0, 0])
        (27.0, 9.0)
        """
        how = as_sequence(self.rule, mask, reduction, has_aux, y_target, modulator, donate)
        how |= {"loss_fn": loss_fn, "step_fn": step_fn}
        check_loss(loss_fn, step_fn, 1 + len(targets), self._called)
        sequences = in_front("input x", x), *in_front("target", targets)
        gradients, new, info = self.etrace_grad(params, state, *sequences, **how)
        assert new is not None
        return value_of(info, how), gradients, new
