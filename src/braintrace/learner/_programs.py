"""The compiled programs of an analysed cell: each is traced once for each shape."""

import functools

import jax
from jaxtyping import PyTree

from ..cell import Cell
from ..core.engine import EngineState, Rule, advance, evolve, update, window
from ._objective import Given, Plan, gradient

_MOST_KEPT = 32


class Programs:
    """Steps, windows and sequences of a cell on flat lists, jitted.

    `with_gradient` says for each parameter whether its gradient is wanted.
    """

    def __init__(self, cell: Cell, rule: Rule, with_gradient: list[bool]):
        self.cell, self.rule, self._with_gradient = cell, rule, with_gradient
        graph = cell.graph
        self.update = jax.jit(lambda *flat: update(graph, rule, *flat))
        self.window = jax.jit(
            lambda full, *flat: window(graph, rule, *flat, full=full), static_argnums=0
        )
        self.evolve = jax.jit(lambda *flat: evolve(graph, *flat))
        self.advance = jax.jit(
            lambda size, p, c, t, xs: advance(graph, rule, p, c, t, xs, size), static_argnums=0
        )
        # the programs of the objectives used last are kept
        self._gradient_of = functools.lru_cache(_MOST_KEPT)(
            lambda objective: jax.jit(functools.partial(self._gradient), static_argnums=0)
        )

    def gradient(self, plan: Plan, *flat: PyTree) -> PyTree:
        """Of params, carry, traces and a `Given`: ((gradients of the model, of what is outside of
        it), carry, traces, info, the outside values that moved on).
        """
        return self._gradient_of(plan.objective)(plan, *flat)

    def _gradient(
        self,
        plan: Plan,
        params: list[jax.Array],
        carry: list[jax.Array],
        traces: PyTree,
        given: Given,
    ) -> PyTree:
        graph = self.cell.graph
        state = EngineState.of(graph, [*carry, *given.outside.moving], traces)
        (model, outside), state, info = gradient(self.cell, self.rule, plan, params, state, given)
        kept = [
            g if wanted else None for g, wanted in zip(model, self._with_gradient, strict=False)
        ]
        after, traces = state.parts(graph)
        return (kept, outside), after[: len(carry)], traces, info, after[len(carry) :]
