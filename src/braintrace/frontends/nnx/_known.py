"""What is known of a learner of an NNX module before it runs."""

from typing import Any

from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from ...core.analysis import CellGraph, Exactness
from ...core.engine import MemoryPlan, Names, Rule
from ...learner import Shardings
from ...reports import CompilationReport
from ._core import Core
from ._module import SplitModule


class Known:
    """What the learner's core knows."""

    _core: Core
    _functional: SplitModule

    @property
    def graph(self) -> CellGraph:
        """The analysed model."""
        return self._core.graph

    @property
    def rule(self) -> Rule:
        """The algorithm's parts."""
        return self._core.rule

    @property
    def report(self) -> CompilationReport:
        """What the compiler states, as for `FunctionLearner`."""
        return self._core.report

    @property
    def wrt(self) -> PyTree:
        """The filter of what is trained: `nnx.Optimizer(model, tx, wrt=learner.wrt)`."""
        functional, rows = self._functional, self._core.graph.parameters
        owners = zip(functional.trained.owners, rows, strict=True)
        trained = {o for o, row in owners if row.exactness is not Exactness.FROZEN}
        if trained == set(functional.trained.owners):
            return functional.filters[0]
        return nnx.All(functional.filters[0], lambda path, value: path in trained)

    def memory_plan(
        self,
        T: int,
        window: int | None = None,
        *,
        return_state: bool = True,
        shardings: Shardings | None = None,
    ) -> MemoryPlan:
        """Bytes that `etrace_grad` needs for T steps: `FunctionLearner.memory_plan`."""
        how: Any = {"return_state": return_state, "shardings": shardings}
        return self._core.memory_plan(T, window, **how)

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
        return self._core.shardings(mesh, **how)
