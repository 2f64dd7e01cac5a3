"""The base classes of the algorithms: a learner that wraps a brainstate module and stands in for it."""

from collections.abc import Callable, Collection
from typing import Any

import brainstate
import jax
import jax.numpy as jnp

from ..._analysis import CellGraph
from ..._checks import GradientReport
from ..._errors import UsageError, problem
from ..._learner import Budget, MemoryPlan, sequence_length, target_signal
from ..._parts import Rule
from ._check import check_module
from ._compiled import Compiled
from ._data import MultiStepData, SingleStepData
from ._drivers import Driver
from ._states import as_before_on_error, states_of

_LAST_STEP = jnp.iinfo(jnp.int32).max


class EligibilityTrace(brainstate.ShortTermState):
    """The eligibility traces of a learner: a pytree of arrays, laid out by the algorithm's carrier."""

    __module__ = "braintrace"


class ETraceAlgorithm(brainstate.nn.Module):
    """Wraps a one-step model and learns it online with eligibility traces.

    After `compile_graph` the learner is called where the model was called. Automatic differentiation through a call
    (`brainstate.transform.grad`, say) gives the online gradient of that step for every `ParamState` of the model. No gradient
    leaves a call through the model's old states or the traces: these hold the past already.

    Settings of `brainstate.environ` (`dt`, `fit`, ...) are read when the model is compiled.

    Attributes:
        model: the wrapped module; its states are the learner's states.
        etrace: the `EligibilityTrace`.
        running_index: int32 state, the number of steps consumed; it stops at its largest value.
    """

    __module__ = "braintrace"

    def __init__(self, model: brainstate.nn.Module, rule: Rule, name: str | None = None):
        super().__init__(name=name)  # pyright: ignore[reportCallIssue]
        if not isinstance(model, brainstate.nn.Module):
            raise UsageError(
                problem("This model is no brainstate module.", got=type(model).__name__, expected="a brainstate.nn.Module",
                        do="for a function (params, carry, x) -> (carry, out) call braintrace.compile with params and carry")
            )  # fmt: skip
        self.model = model
        self._rule = rule
        self._compiled: Compiled | None = None
        self._driver: Driver | None = None
        self._zero: Any = None  # the traces when they are known to be zero
        self._full = False

    # Compiling -----------------------------------------------------------------------------------------------------

    def compile_graph(
        self, *example_inputs: Any, vmap: bool = False, mapped: Collection[int] | None = None, memory_budget: int | None = None,
        **analysis: Any,
    ) -> "ETraceAlgorithm":  # fmt: skip
        """Analyse the model at the shapes of `example_inputs` (one step) and of its present states; traces start at zero.

        Args:
            *example_inputs: inputs of one step, as the learner will be called with.
            vmap: whether the model is written for one sample; the learner then maps it over axis 0 of the inputs.
            mapped: ids of the states that have one value per sample; by default every state that is no `ParamState`.
            memory_budget: the most bytes that a sequence may need (see `memory_plan`); None for no limit.
            **analysis: `unroll_limit` (sub-steps of a loop that are unrolled), `max_slots` (states of one position).

        Returns:
            The learner itself.

        Raises:
            CompilationError: for a model that cannot be analysed; its states are as before.
            UsageError: where one step needs more than `memory_budget`; nothing is allocated then.
        """
        if not example_inputs:
            raise UsageError(
                problem("No example input.", expected="the inputs of one step", do="compile_graph(x), with x as in learner(x)")
            )  # fmt: skip
        x = tuple(v.data if isinstance(v, SingleStepData) else v for v in example_inputs)
        if mapped is None:
            shared = (brainstate.ParamState, brainstate.random.RandomState)
            mapped = {id(s) for s in states_of(self.model).values() if vmap and not isinstance(s, shared)}
        with as_before_on_error(self.model):
            compiled = Compiled(self.model, self._rule, x, mapped, vmap, analysis)
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
                problem(f"{type(self).__name__} is not compiled.", do="call compile_graph(x) with the inputs of one step first")
            )  # fmt: skip
        return self._compiled

    @property
    def graph(self) -> CellGraph:
        """The analysed model."""
        return self.compiled.cell.graph

    @property
    def report(self) -> str:
        """What the compiler states about each parameter, as a table."""
        return self.graph.table(self._rule.carrier, self._rule.name)

    def memory_plan(self, T: int, window: int | None = None, *, return_state: bool = True) -> MemoryPlan:
        """Bytes that `etrace_grad` needs for T steps, and BPTT beside it, from shapes alone; `print` shows a table.

        Args:
            T: steps of the sequence.
            window: as in `etrace_grad`; by default the one that it would choose.
            return_state: as in `etrace_grad`.
        """
        self.compiled.check_states()
        assert self._driver is not None
        return self._driver.budget.plan(T, window, return_state)

    # One step ------------------------------------------------------------------------------------------------------

    def update(self, *inputs: Any, y_target: Any = None) -> Any:
        """One step: the model's output. Its states and the traces move on.

        Inputs marked as `MultiStepData` hold several steps, time on axis 0; their outputs are stacked. `y_target`,
        (B, n_target), is for algorithms that project targets.
        """
        compiled = self.compiled
        assert self._driver is not None
        x, many = unwrap(inputs)
        if self._driver.active is not None:
            if many or y_target is not None:
                raise UsageError(
                    problem("Inside a sequence driver the learner is called with the inputs of one step.",
                            got="MultiStepData" if many else "y_target", do="pass sequences and y_target to the driver")
                )  # fmt: skip
            return self._driver.active(x)
        compiled.check_states()
        steps = sequence_length(x) if many else 1
        flat = compiled.inputs(x, (steps,) if many else ())
        args = (compiled.params(), compiled.carry(), self.etrace.value, flat)
        if many:
            carry, traces, outs = compiled.window(self._full, *args)
        else:
            carry, traces, outs = compiled.update(*args, target_signal(compiled.cell.graph, y_target, self._rule.target_timing))
        self._move(carry, traces, steps)
        return compiled.cell.out.unflatten(outs)

    __call__ = update

    def _move(self, carry: list[Any] | None, traces: Any, steps: int) -> None:
        if carry is not None:
            self.compiled.write(carry)
        if traces is not None:
            self.etrace.value = traces
        before = self.running_index.value
        self.running_index.value = jnp.where(before > _LAST_STEP - steps, _LAST_STEP, before + steps).astype(jnp.int32)

    # Sequences -----------------------------------------------------------------------------------------------------

    def etrace_grad(
        self, *sequences: Any, step_fn: Callable[..., Any], mask: Any = None, reset: Any = None,
        chunk_size: int | None = None, window: int | None = None, weights: Any = None, reduction: str = "mean",
        loss_output: str = "step", has_aux: bool = False, return_value: bool = False, return_state: bool = True,
        y_target: Any = None,
    ) -> Any:  # fmt: skip
        """The gradient of a whole sequence, in memory that does not grow with its length.

        Args:
            *sequences: arrays (or trees of arrays) with time on axis 0.
            step_fn: `step_fn(*slices)`, the loss of one step: calls `learner(x)` and returns a scalar, or one value per lane,
                shape (B,). With `has_aux`, `(loss, aux)`.
            mask: weights of the losses: (T,) for a scalar loss, (T, B) for a loss with one value per lane.
            reset: (T, B) bool: where true, that lane's short-term states are set to their values at compile time and its
                traces to zero before that step. The step must call the learner once.
            chunk_size: steps done at once (`window` is the same). It changes speed and memory, never the numbers beyond
                rounding. Default: as many as fit a memory budget, at most 64.
            weights: what to differentiate: `ParamState`s, or paths as in `model.states()`, in a list or dict. Default: all
                of the model's.
            reduction: 'mean' divides by the sum of the mask (without one: by the number of steps, or of step-lanes);
                'sum' does not.
            loss_output: 'step' returns losses as `step_fn` gave them, (T,) or (T, B); 'total' the reduced scalar.
            has_aux: whether `step_fn` returns `(loss, aux)`; aux is returned stacked over time.
            return_value: whether to return the losses.
            return_state: with False hidden states and traces are left as they were before the call (the end trace is then
                not formed, which is faster); random keys and statistics move on in any case.
            y_target: (T, B, n_target), for algorithms that project targets; it is weighted as the losses are.

        Returns:
            The gradients as `brainstate.transform.grad(f, model.states(brainstate.ParamState))` gives them; with
            `return_value`, and with `has_aux`, a tuple: gradients, losses, aux.

        Raises:
            UsageError: for arguments that do not fit, and when a loss is not finite (eager calls). States are as before.
        """
        self.compiled.check_states()
        assert self._driver is not None
        return self._driver.gradient(
            sequences, step_fn, mask=mask, reset=reset, window=chunk_size if window is None else window, weights=weights,
            reduction=reduction, loss_output=loss_output, has_aux=has_aux, return_value=return_value,
            return_state=return_state, y_target=y_target,
        )  # fmt: skip

    def etrace_fit(
        self, *sequences: Any, step_fn: Callable[..., Any], optimizer: Any, mode: str | None = None, **options: Any
    ) -> Any:
        """Learn from one sequence with an optimiser that holds the parameters; returns the losses.

        Args:
            *sequences, step_fn: as for `etrace_grad`.
            optimizer: an object with `update(gradients)`, such as those of braintools.optim, with the model's parameters
                registered.
            mode: 'A' updates once, with the gradient of the sequence; 'O' at every step, with the gradient of that step's loss.
                Default: the algorithm's own (OTTT), else 'A'.
            **options: of `etrace_grad`.
        """
        mode = mode or self._rule.schedule or "A"
        if mode not in ("A", "O"):
            raise UsageError(problem("Unknown mode.", got=repr(mode), expected="'A' or 'O'"))
        if mode == "A":
            gradients, losses = self.etrace_grad(*sequences, step_fn=step_fn, return_value=True, **options)
            optimizer.update(gradients)
            return losses
        timed = {k: options.pop(k) for k in ("mask", "reset", "y_target") if options.get(k) is not None}

        def one(slices: Any, given: Any) -> Any:
            slices, given = jax.tree.map(lambda v: v[None], (slices, given))
            gradients, loss = self.etrace_grad(*slices, step_fn=step_fn, return_value=True, **given, **options)
            optimizer.update(gradients)
            return loss[0]

        return brainstate.transform.for_loop(one, sequences, timed)

    def etrace_evolve(self, *sequences: Any, return_outputs: bool = True, step_fn: Callable[..., Any] | None = None) -> Any:
        """Forward only over a sequence; the traces stay as they are.

        Args:
            *sequences: the inputs, time on axis 0; with `step_fn`, its arguments.
            return_outputs: whether to return the outputs, stacked over time; else None.
            step_fn: what to do at each step instead of `learner(*slices)`.
        """
        self.compiled.check_states()
        assert self._driver is not None
        return self._driver.evolve(sequences, return_outputs, step_fn)

    def check_gradients(
        self, *sequences: Any, step_fn: Callable[..., Any], tolerance: float | None = None, **options: Any
    ) -> GradientReport:
        """Compare the gradient of a sequence with BPTT through the same step function, parameter by parameter.

        Both start at the model's present states, the online one with zero traces; every state is as before at the end.

        Args:
            *sequences, step_fn: as for `etrace_grad`; `step_fn` calls the learner once.
            tolerance: relative error up to which a gradient counts as equal; by default 1e-8 in float64, 1e-3 in float32.
            **options: mask, reset, reduction, window and y_target, as for `etrace_grad`.
        """
        return check_module(self, sequences, step_fn, tolerance, options)

    # States --------------------------------------------------------------------------------------------------------

    def reset_state(self, batch_size: int | None = None, *, model: bool = False) -> None:
        """Set the traces and `running_index` to zero; with `model`, short-term states to their values at compile time.

        `batch_size`, when given, must be the compiled one: the layout of traces never changes after compiling.
        """
        compiled = self.compiled
        if batch_size is not None and batch_size != compiled.lanes:
            raise UsageError(
                problem("Another batch size than the compiled one.", got=batch_size, expected=compiled.lanes,
                        do="compile again for another batch size")
            )  # fmt: skip
        self.etrace.value = self._clear()
        self.running_index.value = jnp.zeros((), jnp.int32)
        if model:
            layout = compiled.functional.carry
            for state, value in zip(layout.states, layout.values(compiled.initial.leaves), strict=True):
                if isinstance(state, brainstate.ShortTermState):
                    state.value = value

    def _clear(self) -> Any:
        self._zero = self._rule.init(self.graph)
        return self._zero

    @property
    def known_zero(self) -> bool:
        """Whether the traces are those of a reset: zero."""
        now = jax.tree.leaves(self.etrace.value)
        return all(a is b for a, b in zip(now, jax.tree.leaves(self._zero), strict=True))

    def get_etrace_of(self, weight: Any) -> dict[str, list[Any]]:
        """The traces of a parameter, given as `ParamState` or as path: for each of its leaves, one entry per site."""
        name = self._name_of(weight)
        layout = self.compiled.functional.params
        rows = [
            row for row, s in zip(self.graph.parameters, layout.leaf_states(), strict=True)
            if s is layout.states[layout.names.index(name)]
        ]  # fmt: skip
        traces = self.etrace.value["carrier"] if self.graph.extra else self.etrace.value
        return {row.path: [self._rule.carrier.of_site(traces, n) for n in row.sites] for row in rows}

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
                problem("No such parameter of the model.", got=weight, expected=f"one of {list(layout.names)}",
                        do="pass a ParamState of the model, or its path")
            )  # fmt: skip
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
    def other_states(self) -> dict[Any, brainstate.State]:
        """Every other state that a step reads or writes, by path (by name, where it is no part of the model)."""
        f = self.compiled.functional
        paths = {id(s): path for path, s in states_of(self.model).items()}
        named = {**dict(zip(f.constants.names, f.constants.states, strict=True)),
                 **dict(zip(f.carry.names, f.carry.states, strict=True))}  # fmt: skip
        return {paths.get(id(s), n): s for n, s in named.items() if not isinstance(s, brainstate.HiddenState)}


class ETraceVjpAlgorithm(ETraceAlgorithm):
    """An algorithm whose learning signal comes from reverse-mode differentiation.

    `vjp_method` says what a call with `MultiStepData` differentiates: 'single-step' gives the sum of the online gradients of
    its steps; 'multi-step' BPTT inside the call plus the traces at its entry, which is another number.
    """

    __module__ = "braintrace"

    def __init__(self, model: brainstate.nn.Module, rule: Rule, *, vjp_method: str = "single-step", name: str | None = None):
        super().__init__(model, rule, name)
        if vjp_method not in ("single-step", "multi-step"):
            raise UsageError(problem("Unknown vjp_method.", got=repr(vjp_method), expected="'single-step' or 'multi-step'"))
        if vjp_method == "multi-step" and rule.multi_step_problem:
            raise UsageError(
                problem(f"{rule.name} has no multi-step form.", got="vjp_method='multi-step'", expected="'single-step'",
                        do=rule.multi_step_problem)
            )  # fmt: skip
        self.vjp_method = vjp_method
        self._full = vjp_method == "multi-step"


def unwrap(inputs: tuple[Any, ...]) -> tuple[tuple[Any, ...], bool]:
    """The bare inputs, and whether they hold several steps."""
    many = [isinstance(v, MultiStepData) for v in inputs]
    if any(many) and not all(many):
        raise UsageError(
            problem("Some inputs hold several steps and some hold one.", got=[type(v).__name__ for v in inputs],
                    expected="MultiStepData for all inputs, or for none", do="repeat the inputs of one step over time")
        )  # fmt: skip
    return tuple(v.data if isinstance(v, (SingleStepData, MultiStepData)) else v for v in inputs), any(many)
