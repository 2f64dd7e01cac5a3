"""What a learner of a brainstate module shows: the analysed model, its states by path, its
traces.
"""

from typing import TYPE_CHECKING, Any, TextIO, cast

import brainstate
from jax.sharding import Mesh
from jaxtyping import PyTree

from ...compat import ETraceConfig, coordinates
from ...compat._graph import ETraceGraph
from ...core._domains import flag
from ...core._errors import UsageError
from ...core.engine import MemoryPlan, Names, Rule
from ...core.traces import Factored, unrounded
from ...learner import Shardings
from ...reports import CompilationReport, Path
from ._states import states_of

if TYPE_CHECKING:
    from ._algorithm import ETraceAlgorithm


class LearnerViews:
    """What `ETraceAlgorithm` answers about its model; nothing here changes a state."""

    @property
    def _shown(self) -> "ETraceAlgorithm":
        """The learner."""
        return cast("ETraceAlgorithm", self)

    @property
    def graph(self) -> ETraceGraph:
        """The analysed model."""
        return self._shown.functional.states_graph

    @property
    def executor(self) -> "ETraceAlgorithm":
        """The learner itself. In the PyPI package braintrace its executor holds the graph and the
        states, and shows them.
        """
        return self._shown

    graph_executor = executor

    @property
    def report(self) -> CompilationReport:
        """What the compiler states about each parameter; `print(learner.report)` shows it as a
        table.
        """
        return CompilationReport(self.graph, self._shown._rule.carrier, self._shown._rule.name)

    @property
    def config(self) -> ETraceConfig | None:
        """The algorithm as a point of the axes of `ETraceConfig`; None for one that is none (OTPE,
        OSTTP).
        """
        return coordinates(self._shown._rule)

    def show_graph(
        self, verbose: bool = True, return_msg: bool = False, *, file: TextIO | None = None
    ) -> str | None:
        """Print the report where `verbose`; return it as text where `return_msg`."""
        wanted = flag("return_msg", return_msg)
        if flag("verbose", verbose):
            self.report.show(file=file)
        return self.report.to_str() if wanted else None

    def shardings(
        self,
        mesh: Mesh,
        *,
        data: Names = None,
        model: Names = None,
        memory_budget: int | None = None,
    ) -> Shardings:
        """How the arrays of the learner are divided between the devices of a mesh, as for
        `FunctionLearner`; its trees are those of the functional learner. `divide` puts them there.
        """
        how: Any = {"data": data, "model": model, "memory_budget": memory_budget}
        return self._shown.functional.shardings(mesh, **how)

    def memory_plan(
        self,
        T: int,
        window: int | None = None,
        *,
        return_state: bool = True,
        shardings: Shardings | None = None,
    ) -> MemoryPlan:
        """Bytes that `etrace_grad` needs for T steps, and BPTT beside it, from shapes alone;
        `print` shows a table.

        Args:
            T: steps of the sequence.
            window: as in `etrace_grad`; by default the one that it would choose.
            return_state: as in `etrace_grad`.
            shardings: the bytes are then those of one device.
        """
        self._shown.functional.check_states()
        how: Any = {"return_state": return_state, "shardings": shardings}
        return self._shown.functional.memory_plan(T, window, **how)

    def get_etrace_of(self, weight: object) -> dict[str, list[PyTree]]:
        """The traces of a parameter, given as `ParamState` or as path: for each of its leaves, one
        entry per site.
        """
        wanted = self._parameter(weight)
        owners = self._shown.functional.module.params.leaf_states()
        held = self._shown.etrace.value
        traces = held["carrier"] if self.graph.extra else held
        return {
            row.path: [self._shown._rule.carrier.of_site(traces, n) for n in row.sites]
            for row, state in zip(self.graph.parameters, owners, strict=True)
            if state is wanted
        }

    def _parameter(self, weight: object) -> brainstate.State:
        """The parameter of the model that a state, a path or a name stands for."""
        layout = self._shown.functional.module.params
        wanted = self.param_states.get(weight) if isinstance(weight, tuple) else weight
        for name, state in zip(layout.names, layout.states, strict=True):
            if state is wanted or name == weight:
                return state
        raise UsageError(
            "No such parameter of the model.",
            got=repr(weight),
            expected=f"one of {list(layout.names)}",
            do="pass a ParamState of the model, or its path",
        )

    @property
    def param_states(self) -> PyTree:
        """The model's `ParamState`s by path."""
        return self._shown.model.states(brainstate.ParamState)

    @property
    def hidden_states(self) -> PyTree:
        """The model's `HiddenState`s by path."""
        return self._shown.model.states(brainstate.HiddenState)

    @property
    def path_to_states(self) -> dict[Path, brainstate.State]:
        """Every state of the model by path."""
        return states_of(self._shown.model)

    @property
    def state_id_to_path(self) -> dict[int, Path]:
        """The path of each state of the model by `id(state)`."""
        return {id(s): path for path, s in self.path_to_states.items()}

    @property
    def other_states(self) -> dict[Path | str, brainstate.State]:
        """Every other state that a step reads or writes, by path (by name, where it is no part of
        the model).
        """
        f = self._shown.functional.module
        paths = self.state_id_to_path
        names, states = (*f.constants.names, *f.carry.names), (*f.constants.states, *f.carry.states)
        return {
            paths.get(id(s), n): s
            for n, s in zip(names, states, strict=True)
            if not isinstance(s, brainstate.HiddenState)
        }


class FactorisedDecays:
    """The decays of a learner whose trace is an input and a state trace; else it has none."""

    _rule: Rule

    @property
    def decay_x(self) -> float:
        """The decay of the input trace; 0.9 for a rank of 19."""
        return cast(Factored, unrounded(self._rule.carrier)).input_decay

    @property
    def decay_f(self) -> float:
        """The decay of the state trace."""
        return cast(Factored, unrounded(self._rule.carrier)).state_decay

    @property
    def decay(self) -> float | tuple[float, float]:
        """The decay of both traces; where they differ, the pair."""
        x, f = self.decay_x, self.decay_f
        return x if x == f else (x, f)
