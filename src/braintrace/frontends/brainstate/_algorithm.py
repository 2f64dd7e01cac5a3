"""The base classes of the algorithms: a learner that wraps a brainstate module and stands in for
it.
"""

from collections.abc import Collection
from types import EllipsisType
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ...cell import sequence_length
from ...compat import ETraceConfig, MultiStepData, SingleStepData, coordinates
from ...compat._graph import ETraceGraph
from ...core._errors import UsageError, problem
from ...core.engine import MemoryPlan, Rule, target_signal
from ...learner import Budget
from ...reports import CompilationReport
from ._compiled import Compiled
from ._drivers import Driver
from ._sequences import SequenceDriverMixin
from ._states import as_before_on_error, states_of

_LAST_STEP = jnp.iinfo(jnp.int32).max


class EligibilityTrace(brainstate.ShortTermState):
    """The eligibility traces of a learner: a pytree of arrays, laid out by the algorithm's carrier.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, "d_rtrl", jnp.zeros(2))
    >>> isinstance(learner.etrace, braintrace.EligibilityTrace)
    True
    """

    __module__ = "braintrace"


class ETraceAlgorithm(SequenceDriverMixin, brainstate.nn.Module):
    """Wraps a one-step model and learns it online with eligibility traces.

    After `compile_graph` the learner is called where the model was called. Automatic
    differentiation through a call (`brainstate.transform.grad`, say) gives the online gradient of
    that step for every `ParamState` of the model. No gradient leaves a call through the model's old
    states or the traces: these hold the past already.

    Settings of `brainstate.environ` (`dt`, `fit`, ...) are read when the model is compiled.

    Attributes:
        model: the wrapped module; its states are the learner's states.
        etrace: the `EligibilityTrace`.
        running_index: int32 state, the number of steps consumed; it stops at its largest value.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> _ = brainstate.nn.init_all_states(model)
    >>> learner = braintrace.D_RTRL(model).compile_graph(jnp.zeros(2))
    >>> gradients = brainstate.transform.grad(lambda x: learner(x).sum(), learner.param_states)(jnp.ones(2))
    >>> sorted(gradients) == sorted(learner.param_states)
    True
    >>> int(learner.running_index.value)
    1
    """

    __module__ = "braintrace"

    def __init__(self, model: brainstate.nn.Module, rule: Rule, name: str | None = None):
        super().__init__(name=name)  # pyright: ignore[reportCallIssue]
        if not isinstance(model, brainstate.nn.Module):
            raise UsageError(
                problem(
                    "This model is no brainstate module.",
                    got=type(model).__name__,
                    expected="a brainstate.nn.Module",
                    do="for a function (params, carry, x) -> (carry, out) call braintrace.compile with params and carry",
                )
            )
        self.model = model
        self._rule = rule
        self._compiled: Compiled | None = None
        self._driver: Driver | None = None
        self._zero: Any = None  # the traces when they are known to be zero
        self._full = False
        self._analysis: dict[str, Any] = {}

    # Compiling
    # -----------------------------------------------------------------------------------------------------

    def compile_graph(
        self,
        *example_inputs: Any,
        vmap: bool = False,
        mapped: Collection[int] | None = None,
        lanes: int | EllipsisType | None = ...,
        memory_budget: int | None = None,
        **analysis: Any,
    ) -> "ETraceAlgorithm":
        """Analyse the model at the shapes of `example_inputs` (one step) and of its present states;
        traces start at zero.

        Args:
            *example_inputs: inputs of one step, as the learner will be called with.
            vmap: whether the model is written for one sample; the learner then maps it over axis 0
                of the inputs.
            mapped: ids of the states that have one value per sample; by default every state that is
                no `ParamState`.
            lanes: the size of the batch, None for no batch. By default the size of axis 0 that
                hidden states and inputs share.
            memory_budget: the most bytes that a sequence may need (see `memory_plan`); None for no
                limit.
            **analysis: `unroll_limit` (sub-steps of a loop that are unrolled), `max_slots` (states
                of one position), `control_flow` (a `ControlFlowPolicy`, in place of
                `unroll_limit`), `trainable` and `exclude` (as for `braintrace.compile`).

        Returns:
            The learner itself.

        Raises:
            CompilationError: for a model that cannot be analysed; its states are as before.
            UsageError: where one step needs more than `memory_budget`; nothing is allocated then.
        """
        if not example_inputs:
            raise UsageError(
                problem(
                    "No example input.",
                    expected="the inputs of one step",
                    do="compile_graph(x), with x as in learner(x)",
                )
            )
        x = tuple(v.data if isinstance(v, SingleStepData) else v for v in example_inputs)
        if mapped is None:
            shared = (brainstate.ParamState, brainstate.random.RandomState)
            mapped = {
                id(s) for s in states_of(self.model).values() if vmap and not isinstance(s, shared)
            }
        with as_before_on_error(self.model):
            compiled = Compiled(
                self.model, self._rule, x, mapped, vmap, {**analysis, **self._analysis}, lanes
            )
            budget = Budget(compiled.cell.graph, compiled.rule, memory_budget)
        self._compiled, self._driver = compiled, Driver(self, compiled, budget)
        self.etrace = EligibilityTrace(self._clear())
        self.running_index = brainstate.LongTermState(jnp.zeros((), jnp.int32))
        return self

    @property
    def is_compiled(self) -> bool:
        """Whether `compile_graph` was called."""
        return self._compiled is not None

    @property
    def compiled(self) -> Compiled:
        """The compiled model."""
        if self._compiled is None:
            raise UsageError(
                problem(
                    f"{type(self).__name__} is not compiled.",
                    do="call compile_graph(x) with the inputs of one step first",
                )
            )
        return self._compiled

    @property
    def driver(self) -> Driver:
        """What runs the compiled model over sequences."""
        assert self.compiled is not None and self._driver is not None
        return self._driver

    @property
    def _driven(self) -> "ETraceAlgorithm":
        return self

    @property
    def graph(self) -> ETraceGraph:
        """The analysed model."""
        return self.compiled.graph

    @property
    def report(self) -> CompilationReport:
        """What the compiler states about each parameter; `print(learner.report)` shows it as a
        table.
        """
        return CompilationReport(self.graph, self._rule.carrier, self._rule.name)

    @property
    def config(self) -> ETraceConfig | None:
        """The algorithm as a point of the axes of `ETraceConfig`; None for one that is none (OTPE,
        OSTTP).
        """
        return coordinates(self._rule)

    def show_graph(self, *, file: Any = None) -> None:
        """Print the report."""
        self.report.show(file=file)

    def memory_plan(
        self, T: int, window: int | None = None, *, return_state: bool = True
    ) -> MemoryPlan:
        """Bytes that `etrace_grad` needs for T steps, and BPTT beside it, from shapes alone;
        `print` shows a table.

        Args:
            T: steps of the sequence.
            window: as in `etrace_grad`; by default the one that it would choose.
            return_state: as in `etrace_grad`.
        """
        self.compiled.check_states()
        return self.driver.budget.plan(T, window, return_state)

    # One step
    # ------------------------------------------------------------------------------------------------------

    def update(self, *inputs: Any, y_target: Any = None) -> Any:
        """One step: the model's output. Its states and the traces move on.

        Inputs marked as `MultiStepData` hold several steps, time on axis 0; their outputs are
        stacked. `y_target`, (B, n_target), is for algorithms that project targets.
        """
        compiled = self.compiled
        x, many = unwrap(inputs)
        if (active := self.driver.active) is not None:
            if many or y_target is not None:
                raise UsageError(
                    problem(
                        "Inside a sequence driver the learner is called with the inputs of one step.",
                        got="MultiStepData" if many else "y_target",
                        do="pass sequences and y_target to the driver",
                    )
                )
            return active(x)
        compiled.check_states()
        steps = sequence_length(x) if many else 1
        flat = compiled.inputs(x, (steps,) if many else ())
        args = (compiled.params(), compiled.carry(), self.etrace.value, flat)
        if many:
            carry, traces, outs = compiled.window(self._full, *args)
        else:
            carry, traces, outs = compiled.update(
                *args, target_signal(compiled.cell.graph, y_target, self._rule.target_timing)
            )
        self._move(carry, traces, steps)
        return compiled.cell.out.unflatten(outs)

    __call__ = update

    def _move(self, carry: list[Any] | None, traces: Any, steps: int) -> None:
        if carry is not None:
            self.compiled.write(carry)
        if traces is not None:
            self.etrace.value = traces
        before = self.running_index.value
        self.running_index.value = jnp.where(
            before > _LAST_STEP - steps, _LAST_STEP, before + steps
        ).astype(jnp.int32)

    # States
    # --------------------------------------------------------------------------------------------------------

    def reset_state(self, batch_size: int | None = None, *, model: bool = False) -> None:
        """Set the traces and `running_index` to zero; with `model`, short-term states to their
        values at compile time.

        `batch_size`, when given, must be the compiled one: the layout of traces never changes after
        compiling.
        """
        compiled = self.compiled
        if batch_size is not None and batch_size != compiled.lanes:
            raise UsageError(
                problem(
                    "Another batch size than the compiled one.",
                    got=batch_size,
                    expected=compiled.lanes,
                    do="compile again for another batch size",
                )
            )
        self.init_etrace_state()
        self.running_index.value = jnp.zeros((), jnp.int32)
        if model:
            layout = compiled.functional.carry
            for state, value in zip(
                layout.states, layout.values(compiled.initial.leaves), strict=True
            ):
                if isinstance(state, brainstate.ShortTermState):
                    state.value = value

    def init_etrace_state(self) -> None:
        """Set the traces to zero, as `compile_graph` does at its end."""
        self.etrace.value = self._clear()

    def _clear(self) -> Any:
        self._zero = self._rule.init(self.graph)
        return self._zero

    @property
    def known_zero(self) -> bool:
        """Whether the traces are those of a reset: zero."""
        now = jax.tree.leaves(self.etrace.value)
        return all(a is b for a, b in zip(now, jax.tree.leaves(self._zero), strict=True))

    def get_etrace_of(self, weight: Any) -> dict[str, list[Any]]:
        """The traces of a parameter, given as `ParamState` or as path: for each of its leaves, one
        entry per site.
        """
        name = self._name_of(weight)
        layout = self.compiled.functional.params
        rows = [
            row
            for row, s in zip(self.graph.parameters, layout.leaf_states(), strict=True)
            if s is layout.states[layout.names.index(name)]
        ]
        traces = self.etrace.value["carrier"] if self.graph.extra else self.etrace.value
        return {
            row.path: [self._rule.carrier.of_site(traces, n) for n in row.sites] for row in rows
        }

    def _name_of(self, weight: Any) -> str:
        layout = self.compiled.functional.params
        if isinstance(weight, tuple):
            weight = self.param_states.get(weight, weight)
        if isinstance(weight, brainstate.State):
            found = [n for n, s in zip(layout.names, layout.states, strict=True) if s is weight]
        else:
            found = [n for n in layout.names if n == weight]
        if not found:
            raise UsageError(
                problem(
                    "No such parameter of the model.",
                    got=weight,
                    expected=f"one of {list(layout.names)}",
                    do="pass a ParamState of the model, or its path",
                )
            )
        return found[0]

    @property
    def param_states(self) -> Any:
        """The model's `ParamState`s by path."""
        return self.model.states(brainstate.ParamState)

    @property
    def hidden_states(self) -> Any:
        """The model's `HiddenState`s by path."""
        return self.model.states(brainstate.HiddenState)

    @property
    def path_to_states(self) -> Any:
        """Every state of the model by path."""
        return states_of(self.model)

    @property
    def other_states(self) -> dict[Any, brainstate.State]:
        """Every other state that a step reads or writes, by path (by name, where it is no part of
        the model).
        """
        f = self.compiled.functional
        paths = {id(s): path for path, s in states_of(self.model).items()}
        named = {
            **dict(zip(f.constants.names, f.constants.states, strict=True)),
            **dict(zip(f.carry.names, f.carry.states, strict=True)),
        }
        return {
            paths.get(id(s), n): s
            for n, s in named.items()
            if not isinstance(s, brainstate.HiddenState)
        }


def unwrap(inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """The bare inputs, and whether they hold several steps."""
    many = [isinstance(v, MultiStepData) for v in inputs]
    if any(many) and not all(many):
        raise UsageError(
            problem(
                "Some inputs hold several steps and some hold one.",
                got=[type(v).__name__ for v in inputs],
                expected="MultiStepData for all inputs, or for none",
                do="repeat the inputs of one step over time",
            )
        )
    return tuple(
        v.data if isinstance(v, (SingleStepData, MultiStepData)) else v for v in inputs
    ), any(many)
