"""A cell of `work` as a brainstate module: for this project's module front end and for the peer."""

from collections.abc import Callable
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from .work import Case, model_of

_GATES = {"gru": 3, "lstm": 4}


class Network(brainstate.nn.Module):
    """The cell's parameters and carry as brainstate's states.

    `product` makes the object that the cell multiplies with of the values of a weight's parts: one
    for each gate when `split`.
    """

    def __init__(self, case: Case, product: Callable[[list[Any]], Any], split: bool):
        super().__init__()
        self.source, self.product = model_of(case), product
        gates = _GATES.get(case.cell, 1) if split else 1
        self.weights = {
            k: _parts(v, 1 if k == "o" else gates) for k, v in self.source.params.items()
        }
        # Each state is an attribute of its own: in a list, the peer does not see that they belong
        # together.
        for k, value in enumerate(jax.tree.leaves(self.source.carry)):
            setattr(self, f"hidden{k}", brainstate.HiddenState(value))

    @property
    def hidden(self) -> list[Any]:
        return [getattr(self, f"hidden{k}") for k in range(len(jax.tree.leaves(self.source.carry)))]

    def init_state(self, *_: Any, **__: Any) -> None:
        for state, value in zip(self.hidden, jax.tree.leaves(self.source.carry), strict=True):
            state.value = value

    def update(self, x: Any) -> Any:
        values = {k: [p.value for p in parts] for k, parts in self.weights.items()}
        params = {
            k: self.product(v) if v[0].ndim == 2 else jnp.concatenate(v) for k, v in values.items()
        }
        carry = jax.tree.unflatten(
            jax.tree.structure(self.source.carry), [s.value for s in self.hidden]
        )
        carry, out = self.source.cell(params, carry, x)
        for state, value in zip(self.hidden, jax.tree.leaves(carry), strict=True):
            state.value = value
        return out


def _parts(value: Any, count: int) -> list[Any]:
    return [brainstate.ParamState(v) for v in jnp.split(value, count, axis=-1)]


def joined(gradients: Any) -> dict[str, Any]:
    """Gradients by the cell's names, the gates joined again."""
    names = dict.fromkeys(path[-2] for path in gradients)
    return {
        n: jnp.concatenate([gradients[p] for p in sorted(gradients) if p[-2] == n], -1)
        for n in names
    }


def functional(run: Callable[..., Any], xs: Any, ys: Any) -> tuple[Any, list[Any]]:
    """`run(xs, ys) -> gradients` on brainstate's states as a pure function, and the states:
    `work.Program`'s form.
    """
    traced = brainstate.transform.StatefulFunction(run)
    traced.make_jaxpr(xs, ys)

    def function(fixed: Any, state: Any, xs: Any, ys: Any) -> Any:
        new, gradients = traced.jaxpr_call(state, xs, ys)
        return gradients, [
            old if value is None else value for old, value in zip(state, new, strict=True)
        ]

    return function, list(traced.get_states(xs, ys))
