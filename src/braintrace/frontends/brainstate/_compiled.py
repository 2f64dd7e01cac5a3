"""A compiled brainstate model: its cell and its jitted evaluations, on the model's own states."""

import functools
from collections.abc import Callable, Collection
from types import EllipsisType
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ...cell import Cell, Values, compile_cell, select
from ...core._compat import is_key
from ...core._errors import CompilationError, UsageError, problem
from ...core.analysis import CellGraph, Exactness
from ...core.engine import Rule, advance, evolve, update, window
from ._functional import Functional, functionalise
from ._graph import ETraceGraph
from ._states import Layout, fit, states_of


class Compiled:
    """What `compile_graph` finds out about a model; reads and writes the model's states."""

    def __init__(
        self,
        model: brainstate.nn.Module,
        rule: Rule,
        x: tuple[Any, ...],
        mapped: Collection[int],
        vmap: bool,
        analysis: dict[str, Any],
        lanes: int | EllipsisType | None = ...,
    ):
        """`lanes`: the size of the batch, None for no batch; by default it is found from the states
        and the inputs.
        """
        self.rule, self.model, self.options = rule, model, analysis
        self.mapped, self.vmap = mapped, vmap
        self.x = jax.tree.map(jnp.asarray, x)
        self.functional: Functional = functionalise(model, self.x, mapped, vmap)
        found = (
            _batch_size(self.functional.carry, self.x) if isinstance(lanes, EllipsisType) else lanes
        )
        self.lanes = self._lane_count(x) if vmap else found
        self.initial = self.functional.carry.read()
        self.initial = Values(self.initial.names, [_array(v) for v in self.initial.leaves])
        params = self.functional.read_params()
        names = self.functional.params.leaf_names
        limits = {k: v for k, v in analysis.items() if k not in ("trainable", "exclude")}
        chosen = select(
            names, params.leaves[: len(names)], analysis.get("trainable"), analysis.get("exclude")
        )
        self.analysis = {**limits, "selection": chosen}
        self.cell: Cell = compile_cell(
            self.functional.cell,
            params,
            self.initial,
            self.x,
            rule=rule,
            lanes=self.lanes,
            rows=len(names),
            **self.analysis,
        )
        self.rule = rule = self.cell.rule or rule
        self._ids = {id(s) for s in states_of(model).values()}
        graph = self.cell.graph
        _check_learnable(graph)
        self.update = jax.jit(lambda *flat: update(graph, rule, *flat))
        self.window = jax.jit(
            lambda full, *flat: window(graph, rule, *flat, full=full), static_argnums=0
        )
        self.evolve = jax.jit(lambda *flat: evolve(graph, *flat))
        self.advance = jax.jit(
            lambda size, p, c, t, xs: advance(graph, rule, p, c, t, xs, size), static_argnums=0
        )

    def _lane_count(self, x: tuple[Any, ...]) -> int:
        sizes = {jnp.shape(v)[:1] for v in jax.tree.leaves(x)}
        if len(sizes) != 1 or () in sizes:
            raise UsageError(
                problem(
                    "With vmap=True the inputs share axis 0, the batch.",
                    got=[jnp.shape(v) for v in jax.tree.leaves(x)],
                    expected="one size of axis 0",
                    do="give every input the batch as axis 0",
                )
            )
        return sizes.pop()[0]

    @functools.cached_property
    def graph(self) -> ETraceGraph:
        """The analysed cell with the model's states and their paths."""
        return ETraceGraph.of(self.cell, self.functional, self.model)

    def resettable(self) -> tuple[int, ...]:
        """The leaves of the engine's carry that a reset sets to their first values."""
        numbers, graph = self.cell.leaf_numbers, self.cell.graph
        found = []
        leaves = zip(
            self.functional.carry.leaf_states(),
            self.initial.names,
            self.initial.leaves,
            strict=True,
        )
        for n, (state, name, leaf) in enumerate(leaves):
            short = isinstance(state, brainstate.ShortTermState) and not is_key(leaf.dtype)
            found.append(short and graph.leaf_axis(numbers.index(n)) is not None)
            if short and leaf.ndim > 0 and not found[-1]:
                raise UsageError(
                    problem(
                        f"The state {name} has no batch axis that reset could refer to.",
                        got=f"shape {leaf.shape}",
                        expected=f"an axis of size {self.lanes}",
                        do="reset between calls, with reset_state(model=True)",
                    )
                )
        return tuple(k for k, n in enumerate(numbers) if found[n])

    def trained_states(self) -> set[int]:
        """Ids of the parameters that are trained, in part at least."""
        frozen = self.analysis["selection"].frozen
        return {
            id(s) for k, s in enumerate(self.functional.params.leaf_states()) if k not in frozen
        }

    def check_states(self) -> None:
        """The model must still hold the states that were compiled."""
        if {id(s) for s in states_of(self.model).values()} != self._ids:
            raise UsageError(
                problem(
                    "The model's states were made anew after it was compiled.",
                    got="other states than the compiled ones",
                    expected="the same states with new values",
                    do="compile again after init_all_states; to start afresh call learner.reset_state(model=True)",
                )
            )

    # The model's states
    # --------------------------------------------------------------------------------------------

    def params(self) -> list[Any]:
        """The present parameters and constants, flat and checked."""
        return self.cell.params.flatten(_checked(self.functional.read_params), "model")

    def carry(self) -> list[Any]:
        """The present carry in the engine's leaves, checked."""
        return self.cell.flat_carry(_checked(self.functional.carry.read))

    def inputs(self, x: tuple[Any, ...], lead: tuple[int, ...] = ()) -> list[Any]:
        """The leaves of a call's inputs, checked, in the compiled units."""
        structure = self.cell.x.structure
        if len(x) != len(self.x):
            raise UsageError(
                problem(
                    "Wrong number of inputs.",
                    got=f"{len(x)} input(s)",
                    expected=f"{len(self.x)}, as compiled",
                    do="call the learner with the inputs that the model takes",
                )
            )
        if jax.tree.structure(x) != structure:
            x = structure.unflatten(fit(x, structure, "input"))
        return self.cell.x.flatten(x, "input sequence" if lead else "input", lead=lead)

    def write(self, carry: list[Any]) -> None:
        """Give the model's states the values of an engine's carry."""
        self.functional.carry.write(self.cell.tree_carry(carry).leaves)


def _check_learnable(graph: CellGraph) -> None:
    if not graph.groups and not graph.hidden:
        raise CompilationError(
            problem(
                "The model has no hidden state.",
                got="a step that writes no differentiable state",
                expected="a recurrent or spiking model, with HiddenStates",
                do="differentiate a feed-forward model with brainstate.transform.grad: it needs no traces",
            )
        )
    if not any(row.sites or row.exactness is not Exactness.EXACT for row in graph.parameters):
        raise CompilationError(
            problem(
                "No parameter reaches a hidden state.",
                got=f"parameters {[row.path for row in graph.parameters]}",
                expected="a ParamState that the hidden state depends on",
                do="hold trainable weights in brainstate.ParamState; for a readout alone use brainstate.transform.grad",
            )
        )


def _checked(read: Callable[[], Values]) -> Values:
    try:
        return read()
    except CompilationError as error:
        raise UsageError(str(error)) from None


def _batch_size(carry: Layout, x: Any) -> int | None:
    """The size of axis 0 that the hidden states and the inputs share, where the states have further
    axes.
    """
    hidden = [
        v
        for s, v in zip(carry.leaf_states(), carry.read().leaves, strict=True)
        if isinstance(s, brainstate.HiddenState)
    ]
    sizes = {jnp.shape(v)[:1] for v in [*hidden, *jax.tree.leaves(x)]}
    if len(sizes) != 1 or () in sizes or all(jnp.ndim(v) == 1 for v in hidden):
        return None
    return sizes.pop()[0]


def _array(value: Any) -> Any:
    return value if isinstance(value, jax.Array) else jnp.asarray(value)
