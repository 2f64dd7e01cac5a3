"""A cell and a rule, compiled: what goes in is checked and made flat, and what comes out is
checked and made the user's.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PyTree

from ..cell._batch import BatchSpec
from ..cell._cell import Cell, compile_cell
from ..cell._convert import check_values, does_the_same
from ..cell._select import Patterns
from ..core._compat import is_key
from ..core._domains import whole
from ..core.analysis import CellGraph, Exactness
from ..core.engine import MemoryPlan, Names, Rule
from ._border import Border
from ._budget import Budget
from ._finite import check_results, first_input, of_state
from ._pickling import packed, shallow_copy
from ._programs import Programs
from ._shardings import Shardings, checked_shardings, division_of, shardings
from ._state import State, counted, owned


class Compiled:
    """What `FunctionLearner` is made of.

    Attributes:
        function, initial, rule, cell: as there.
        border: what a state that comes in is compared with.
    """

    def __init__(
        self,
        cell: Callable[..., PyTree],
        rule: Rule,
        params: PyTree,
        carry: PyTree,
        x: PyTree,
        *,
        batch: BatchSpec | None = None,
        resets: Any = None,
        memory_budget: int | None = None,
        trainable: Patterns = None,
        exclude: Patterns = None,
        **analysis: Any,
    ):
        analysis |= {"batch": batch, "trainable": trainable, "exclude": exclude}
        self._given = {**analysis, "resets": resets, "memory_budget": memory_budget}
        self.cell: Cell = compile_cell(cell, params, carry, x, rule=rule, **analysis)
        self.function, self.initial, self._resets = cell, owned(carry), resets
        self.rule = self.cell.rule or rule
        self.border = Border(self.cell, self.rule)
        self._budget = Budget(self.graph, self.rule, memory_budget)
        of_device = lambda division, limit: Budget(self.graph, self.rule, limit, division)
        self._budgets = functools.cache(of_device)
        self._programs = Programs(self.cell, self.rule, cell, analysis)
        self._taken: dict[Any, bool] = {}  # other structures of inputs, and whether they fit

    @property
    def graph(self) -> CellGraph:
        """The analysed cell."""
        return self.cell.graph

    __copy__ = shallow_copy

    def __deepcopy__(self, memo: dict[int, Any]) -> "Compiled":
        return self  # nothing of it ever changes

    def __reduce__(self) -> Any:
        given = self.rule, self.cell.params.shapes, self.initial, self.cell.x.shapes
        return packed(functools.partial(type(self), self.function, *given, **self._given))

    @property
    def _resettable(self) -> tuple[int, ...]:
        """The leaves of the engine's carry that a reset sets to their initial values."""
        chosen, graph = jax.tree.leaves(self._resets), self.graph
        found = [k for k, n in enumerate(self.cell.leaf_numbers) if not chosen or chosen[n]]
        numbers = [k for k in found if not is_key(graph.carry[k].dtype)]
        return tuple(k for k in numbers if graph.leaf_axis(k) is not None)

    def shardings(
        self,
        mesh: Mesh,
        *,
        data: Names = None,
        model: Names = None,
        memory_budget: int | None = None,
    ) -> Shardings:
        """How the arrays of the learner are divided between the devices of a mesh.

        Args:
            mesh: the devices, `jax.make_mesh((4, 2), ("data", "model"))` say.
            data: the axis of the mesh along which samples are divided, several, or None.
            model: the same for neurons: columns of weights and the traces that belong to them.
            memory_budget: the most bytes that the gradient of a sequence may need on one device; by
                default that of `compile`.

        What the analysis proves decides: the axis of the samples of each array, and the neurons of
        each weight. What has no such axis, or none that the devices divide evenly, is held whole on
        each; `print` shows it.

        Raises:
            UsageError: for what is no mesh, or no axis of it.
        """
        division = division_of(mesh, data, model)
        if memory_budget is not None:
            memory_budget = whole("memory_budget", memory_budget, "a number of bytes, or None")
        found = shardings(self.cell, self.rule, self.border.fingerprint, division)
        return dataclasses.replace(found, memory_budget=memory_budget)

    def memory_plan(
        self,
        T: int,
        window: int | None = None,
        *,
        return_state: bool = True,
        traces: bool = True,
        shardings: Shardings | None = None,
    ) -> MemoryPlan:
        """Bytes that `etrace_grad` needs for T steps, and BPTT beside it, from shapes alone;
        `print` shows a table.

        Args:
            T: steps of the sequence.
            window: as in `etrace_grad`; by default the one that it would choose.
            return_state: as in `etrace_grad`.
            traces: as in `init`: whether the traces are formed before the sequence.
            shardings: of `learner.shardings`: the bytes are then those of one device.
        """
        given = checked_shardings(shardings)
        return self._budget_of(given).plan(T, window, return_state, traces)

    def _budget_of(self, given: Shardings | None) -> Budget:
        """The budget of a call: that of one device where arrays are divided."""
        if given is None:
            return self._budget
        own = given.memory_budget
        return self._budgets(given.division, self._budget.limit if own is None else own)

    @functools.cached_property
    def _with_gradient(self) -> tuple[bool, ...]:
        """For each parameter, whether it has a gradient."""
        return tuple(
            v.differentiable and row.exactness is not Exactness.FROZEN
            for v, row in zip(self.graph.params, self.graph.parameters, strict=False)
        )

    @property
    def _live(self) -> Sequence[bool]:
        """For each leaf of the user's params, whether it has a gradient."""
        constant = len(self.cell.params.leaves) - len(self._with_gradient)
        return [*self._with_gradient, *[False] * constant]

    def _flat(self, params: PyTree) -> list[jax.Array]:
        """The leaves of the user's params that the cell takes, checked."""
        return self.cell.params.flatten(params, "params")

    def _inputs(self, x: PyTree, lead: tuple[int, ...] = ()) -> list[jax.Array]:
        """The leaves of the inputs of a step, or of a sequence, checked."""
        what = "input sequence" if lead else "input x"
        return self.cell.x.inputs(self._like_example(x), what, lead=lead)

    def _like_example(self, x: PyTree) -> PyTree:
        """The leaves of an input of another structure in that of the example, where the step does
        the same with both: a quantity whose unit it takes off, say. Else the input as it is.
        """
        structure, own = jax.tree.structure(x), self.cell.x
        if structure == own.structure:
            return x
        if structure not in self._taken:
            before = self.cell.params.shapes, self.cell.carry.shapes
            self._taken[structure] = does_the_same(self.function, before, own.shapes, structure)
        return own.unflatten(jax.tree.leaves(x)) if self._taken[structure] else x

    def _initial_values(self) -> list[jax.Array]:
        """What a reset goes back to, as the engine has it."""
        do = "pass the carry itself to compile"
        check_values(self.initial, "A reset has no values to go back to.", do)
        return self.cell.carry.apart(self.initial)

    def _start(self, params: PyTree, state: State, *, formed: bool = True) -> tuple[PyTree, ...]:
        """(params, carry, traces) as the engine takes them, `formed` in any case or as they are."""
        self.border.check(state)
        flat, carry, traces = self._flat(params), self.cell.carry.apart(state.carry), state.traces
        if formed and traces is None:
            traces = self._programs.zero(flat, carry)
        return flat, carry, traces

    def _moved(
        self, before: State, steps: int, xs: PyTree, carry: PyTree, traces: PyTree, outs: PyTree
    ) -> tuple[State, PyTree]:
        """The state after the steps of a sequence `xs` or after one step, and the outputs as the
        user's tree, if they are held. The traces of one step are not looked at, which would take a
        fifth of its time: their gradients are.
        """
        looked_at = traces if steps > 1 and traces is not before.traces else None
        old = self.cell.carry.apart(before.carry)
        hint = lambda: first_input(self.graph, xs, None)
        check_results(of_state(self.cell, self.rule.carrier, old, carry, looked_at), hint)
        out = None if outs is None else self.cell.out.unflatten(outs)
        return self._after(before, steps, carry, traces), out

    def _after(self, before: State, steps: int, carry: list[jax.Array], traces: PyTree) -> State:
        """The state after `steps` steps, of one structure with that before them."""
        together = self.cell.carry.together(carry)
        return State(together, traces, counted(before.steps, steps), before.fingerprint)
