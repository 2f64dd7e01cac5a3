"""What an NNX learner says of itself, and where its arrays are."""

from typing import TYPE_CHECKING, Any, cast

import jax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PyTree

from ...core.analysis import CellGraph, Exactness
from ...core.engine import MemoryPlan, Names, Rule
from ...learner import Shardings
from ...reports import CompilationReport

if TYPE_CHECKING:
    from ._learner import NNXLearner


class LearnerViews:
    """What `NNXLearner` answers about its model, and `divide`."""

    @property
    def _shown(self) -> "NNXLearner":
        """The learner."""
        return cast("NNXLearner", self)

    @property
    def graph(self) -> CellGraph:
        """The analysed model."""
        return self._shown._core.graph

    @property
    def rule(self) -> Rule:
        """The algorithm's parts."""
        return self._shown._core.rule

    @property
    def report(self) -> CompilationReport:
        """What the compiler states, as for `FunctionLearner`."""
        return self._shown._core.report

    @property
    def wrt(self) -> PyTree:
        """The filter of what is trained: `nnx.Optimizer(model, tx, wrt=learner.wrt)`."""
        functional, rows = self._shown._functional, self._shown._core.graph.parameters
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
        return self._shown._core.memory_plan(T, window, **how)

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
        return self._shown._core.shardings(mesh, **how)

    def divide(self, shardings: Shardings) -> None:
        """Put the model's Variables, the carry and the traces where `shardings` says. An optimizer
        that is made afterwards has its state there, too.
        """
        learner = self._shown
        params, state = learner._now()
        learner._functional.put_params(learner.model, jax.device_put(params, shardings.params))
        learner._move(jax.device_put(state, shardings.state))
