"""The compiled programs of an analysed cell: each is traced once for each shape."""

import functools
from typing import Any

import jax
from jaxtyping import PyTree

from ..cell import Cell
from ..core._compat import is_traced
from ..core.analysis import Axes, axes_of_carry, axes_of_params
from ..core.engine import (
    Division,
    Rule,
    advance,
    anywhere,
    automatic,
    evolve,
    specs_of,
    step_specs,
    traces_specs,
    update,
    window,
)
from ._bootstrap import learn_estimate
from ._by_device import gradient_by_device, part_of
from ._kept import Kept
from ._objective import Plan, gradient
from ._shardings import Shardings


class Programs:
    """Steps, windows and sequences of a cell on flat lists, jitted. Zero traces, too: constants
    are then part of a program, and `jax.transfer_guard` has nothing to disallow.
    """

    def __init__(self, cell: Cell, rule: Rule, function: Any, analysis: dict[str, Any]):
        of, graph = functools.partial, cell.graph
        self.cell, self.rule = cell, rule
        part = lambda count: part_of(cell, rule, function, count, analysis)
        #: The cell for the samples of one of so many devices.
        self.part = functools.cache(part)

        def steps(program: Any, lead: int, **static: Any) -> Any:
            run = of(program, graph, rule, **static)
            return anywhere(graph, run, step_specs(rule, graph, lead))

        def jitted(program: Any, lead: int, *names: str) -> Any:
            run = lambda *operands, **static: steps(program, lead, **static)(*operands)
            return jax.jit(run, static_argnames=names)

        zero, of_zero = lambda *_: rule.init(graph), lambda of, *_: of.of_traces(rule, graph)
        self.zero = jax.jit(anywhere(graph, zero, of_zero))
        self._divided: dict[Division, Any] = {}
        self.update = jitted(update, 0)
        self.window = jitted(window, 1, "full")
        self.advance = jitted(advance, 1, "size", "held")
        self.evolve = jitted(lambda graph, _, *rest, **kw: evolve(graph, *rest, **kw), 1, "held")
        # a function for each, so that its programs go with it; traces are argument 3
        gradients = lambda gives: jax.jit(
            of(self._gradient), static_argnums=0, donate_argnums=3 if gives else ()
        )
        self.gradients = Kept(lambda *key: gradients(key[-1]))
        self.estimates = Kept(
            lambda loss_fn, resets, *how: jax.jit(of(learn_estimate, cell, resets, loss_fn, *how))
        )

    def gradient(self, plan: Plan, *flat: PyTree, donate: bool = False) -> PyTree:
        """`gradient` of params, carry, traces and a `Given`; with `plan.division` by device, where
        that can be, with `donate` the traces are moved where they lie.
        """
        objective, traced = plan.objective, any(map(is_traced, jax.tree.leaves(flat)))
        counts, key = not traced and objective.counts, (objective, donate and not traced)
        return self.gradients.of(objective.function, *key, counts=counts)(plan, *flat)

    def divided_zero(self, shardings: Shardings) -> PyTree:
        """Zero traces, each part made where it is to be."""
        if shardings.division not in self._divided:
            made = functools.partial(self.rule.init, self.cell.graph)
            program = jax.jit(made, out_shardings=shardings.state.traces)
            self._divided[shardings.division] = program
        return self._divided[shardings.division]()

    def _gradient(self, plan: Plan, *flat: PyTree) -> PyTree:
        def run(*operands: PyTree) -> PyTree:
            if plan.division is None:
                return gradient(self.cell, self.rule, plan, *operands)
            return self._on_mesh(plan, plan.division, *operands)

        return anywhere(self.cell.graph, run, self._specs)(*flat)

    def _on_mesh(self, plan: Plan, of: Division, *operands: PyTree) -> PyTree:
        """By device or else as XLA divides it; results are where `Shardings` has them."""
        graph, part = self.cell.graph, self.part(of.devices(of.samples))
        found = gradient_by_device(part, self.rule, of, plan, *operands)
        if found is None:
            with jax.sharding.use_abstract_mesh(automatic(of.mesh)):
                found = gradient(self.cell, self.rule, plan, *operands)
        (kept, live), carry, traces, info, moved = found
        pairs = zip(axes_of_params(graph), kept, strict=False)
        kept = [None if g is None else of.placed(g, of.spec(axes, g.shape)) for axes, g in pairs]
        pairs = zip(axes_of_carry(graph), carry, strict=False)
        carry = [of.placed(v, of.spec(axes, v.shape)) for axes, v in pairs]
        if traces is not None:
            traces = jax.tree.map(of.placed, traces, of.of_traces(self.rule, graph))
        return (kept, live), carry, traces, info, moved

    def _specs(self, of: Division, operands: tuple[PyTree, ...], shapes: PyTree) -> PyTree:
        """Of what `gradient` returns."""
        params, carry, traces, given = operands
        (kept, _), _, after, info, _ = shapes
        found = [None if g is None else specs_of(v) for g, v in zip(kept, params, strict=False)]
        whole = jax.tree.map(lambda v: of.spec(Axes(), v.shape), info)
        losses = of.spec(Axes(1 if info.losses.ndim > 1 else None), info.losses.shape)
        info = type(info)(losses, whole.aux, whole.by_step, whole.fidelity)
        traces = None if after is None else traces_specs(of, self.rule, self.cell.graph, traces)
        outside = given.outside
        return (
            (found, specs_of(outside.live)),
            specs_of(carry),
            traces,
            info,
            specs_of(outside.moving),
        )
