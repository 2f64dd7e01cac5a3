"""The compiled programs of an analysed cell: each is traced once for each shape."""

import functools

import jax
from jaxtyping import PyTree

from ..cell import Cell
from ..core._compat import is_traced
from ..core.engine import Rule, advance, evolve, update, window
from ._bootstrap import learn_estimate
from ._kept import Kept
from ._objective import Plan, gradient


class Programs:
    """Steps, windows and sequences of a cell on flat lists, jitted. Zero traces, too: constants
    are then part of a program, and `jax.transfer_guard` has nothing to disallow.
    """

    def __init__(self, cell: Cell, rule: Rule):
        of = functools.partial
        self.zero = jax.jit(of(rule.init, cell.graph))
        self.update = jax.jit(of(update, cell.graph, rule))
        self.window = jax.jit(of(window, cell.graph, rule), static_argnames="full")
        self.advance = jax.jit(of(advance, cell.graph, rule), static_argnames=("size", "held"))
        self.evolve = jax.jit(of(evolve, cell.graph), static_argnames="held")
        # a function for each, so that its programs go with it; traces are argument 3
        jitted = lambda gives: jax.jit(
            of(gradient, cell, rule), static_argnums=0, donate_argnums=3 if gives else ()
        )
        self.gradients = Kept(lambda *key: jitted(key[-1]))
        self.estimates = Kept(
            lambda loss_fn, resets, *how: jax.jit(of(learn_estimate, cell, resets, loss_fn, *how))
        )

    def gradient(self, plan: Plan, *flat: PyTree, donate: bool = False) -> PyTree:
        """`gradient` of params, carry, traces and a `Given`; with `donate` the traces are moved
        where they lie.
        """
        objective, traced = plan.objective, any(map(is_traced, jax.tree.leaves(flat)))
        counts, key = not traced and objective.counts, (objective, donate and not traced)
        return self.gradients.of(objective.function, *key, counts=counts)(plan, *flat)
