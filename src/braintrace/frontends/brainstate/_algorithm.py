"""The base classes of the algorithms: a learner that wraps a brainstate module and stands in for
it.
"""

import contextlib
from collections.abc import Callable, Collection, Hashable, Iterator
from types import EllipsisType
from typing import Any

import brainstate
import jax
from jax.typing import ArrayLike
from jaxtyping import PyTree

from ...cell import Values
from ...cell._arguments import Modulator
from ...compat import SingleStepData
from ...core._domains import flag, known, whole
from ...core._errors import UsageError, first_line
from ...core.engine import Rule
from ...core.traces import begun
from ...learner import Kept, Key, State, counted, no_steps, owned, shallow_copy
from ._learner import ModuleLearner
from ._pickling import pickled
from ._sequences import SequenceDriverMixin
from ._states import EligibilityTrace, as_before, states_of
from ._step import StepFunction
from ._views import LearnerViews
from ._windows import one_step, unwrap

_ANALYSIS = "unroll_limit", "max_slots", "control_flow", "trainable", "exclude"


class ETraceAlgorithm(SequenceDriverMixin, LearnerViews, brainstate.nn.Module):
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
    >>> gradients = brainstate.transform.grad(lambda x: learner(x).sum(), learner.param_states)(
    ...     jnp.ones(2)
    ... )
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
                "This model is no brainstate module.",
                got=type(model).__name__,
                expected="a brainstate.nn.Module",
                do="for a function (params, carry, x) -> (carry, out) call braintrace.compile "
                "with params and carry",
            )
        self.model = model
        self._rule = rule
        self._functional: ModuleLearner | None = None
        # what a call does with its inputs instead of a step
        self._active: Callable[[tuple[PyTree, ...]], PyTree] | None = None
        # what is known of the step functions used last, for the drivers
        self._steps = Kept(StepFunction)
        self._optimizers: dict[Any, brainstate.State] = {}  # the states of those of optax
        self._full = False
        self._analysis: dict[str, Any] = {}

    __copy__ = shallow_copy

    def __reduce__(self) -> Any:
        return pickled(self, self.functional if self.is_compiled else None)

    # Compiling
    # ----------------------------------------------------------------------------------------------

    def compile_graph(
        self,
        *example_inputs: PyTree,
        vmap: bool = False,
        axis_name: Hashable = None,
        mapped: Collection[int] | None = None,
        lanes: int | EllipsisType | None = ...,
        memory_budget: int | None = None,
        **analysis: Any,
    ) -> "ETraceAlgorithm":
        """Analyse the model at the shapes of `example_inputs` (one step) and of its present states;
        traces start at zero.

        Args:
            *example_inputs: inputs of one step, as the learner will be called with.
            vmap, axis_name, memory_budget: as for `braintrace.compile`.
            mapped: ids of the states that have one value per sample; by default every state that is
                no `ParamState`.
            lanes: the size of the batch, None for no batch. By default the size of axis 0 that
                hidden states and inputs share.
            **analysis: `unroll_limit` (sub-steps of a loop that are unrolled), `max_slots` (states
                of one position), `control_flow` (a `ControlFlowPolicy`, in place of
                `unroll_limit`), `trainable` and `exclude` (as for `braintrace.compile`).

        Returns:
            The learner itself.

        Raises:
            CompilationError: for a model that cannot be analysed; its states are as before.
            UsageError: where one step needs more than `memory_budget`; nothing is allocated then.
        """
        known("compile_graph", analysis, _ANALYSIS, ("axes",))
        flag("vmap", vmap)
        lanes = lanes if isinstance(lanes, EllipsisType | None) else whole("lanes", lanes)
        if not example_inputs:
            raise UsageError(
                "No example input.",
                got="compile_graph()",
                expected="the inputs of one step",
                do="compile_graph(x), with x as in learner(x)",
            )
        x = tuple(v.data if isinstance(v, SingleStepData) else v for v in example_inputs)
        if mapped is None:
            shared = (brainstate.ParamState, brainstate.random.RandomState)
            mapped = {
                id(s) for s in states_of(self.model).values() if vmap and not isinstance(s, shared)
            }
        with as_before(self.model, after_success=False):
            self._functional = ModuleLearner(
                self.model,
                self._rule,
                x,
                mapped=mapped,
                vmap=vmap,
                axis_name=axis_name,
                samples=lanes,
                memory_budget=memory_budget,
                **{**analysis, **self._analysis},
            )
        self._steps = Kept(StepFunction)
        self.etrace = EligibilityTrace(self._clear())
        # goes where the state goes, `treefy_split` and `treefy_merge` included
        self.etrace.fingerprint = self._functional.border.fingerprint
        self.running_index = brainstate.LongTermState(no_steps())
        return self

    @property
    def is_compiled(self) -> bool:
        """Whether `compile_graph` was called."""
        return self._functional is not None

    @property
    def functional(self) -> ModuleLearner:
        """The functional learner of the model as a pure cell; a copy of the learner gets one of
        its own model when it is first used.
        """
        if self._functional is None:
            raise UsageError(
                f"{type(self).__name__} is not compiled.",
                got="a call before compile_graph",
                expected="a compiled learner",
                do="call compile_graph(x) with the inputs of one step first",
            )
        if self._functional.model is not self.model:
            self._functional = self._functional.of_copy(self.model)
            self._steps = Kept(StepFunction)
        return self._functional

    # One step
    # ----------------------------------------------------------------------------------------------

    def update(
        self, *inputs: PyTree, y_target: ArrayLike | None = None, modulator: Modulator | None = None
    ) -> PyTree:
        """One step: the model's output. Its states and the traces move on.

        Inputs marked as `MultiStepData` hold several steps, time on axis 0; their outputs are
        stacked, and inputs beside them that are not marked are the same at each step. `y_target`,
        (B, n_target), is for algorithms that project targets, and `modulator`, (B,) or (B, n), for
        those that are modulated: see `FunctionLearner.update`.
        """
        functional = self.functional
        signals: dict[str, Any] = {"y_target": y_target, "modulator": modulator}
        given = [name for name, value in signals.items() if value is not None]
        if self._active is not None:
            for name in given:
                raise UsageError(
                    "Inside a sequence driver the learner is called with its inputs alone.",
                    got=name,
                    do=f"pass {name} to the driver",
                )
            return self._active(inputs)
        x, many = unwrap(inputs)
        functional.check_states()
        params, state = self._now()
        if many:
            for name in given:
                raise UsageError(
                    "Inputs of several steps go without signals.",
                    got=name,
                    do=f"pass {name} to a sequence driver",
                )
            new, out = functional.update_window(params, state, x, full=self._full)
        else:
            new, out = functional.update(params, state, x, **signals)
        self._move(new)
        return out

    __call__ = update

    # What the sequence drivers need
    # --------------------------------------------------------------------------------------------

    def _now(self, *, known_zero: bool = False) -> tuple[Values, State]:
        """The parameters and the state of the functional learner; with `known_zero`, without
        traces where these are known to be zero.
        """
        params, carry = self.functional.read()
        traces = self.etrace.value
        known = lambda tree: (jax.tree.structure(tree), [id(v) for v in jax.tree.leaves(tree)])
        zero = known_zero and known(traces) == known(self.functional.zero)
        zero = zero and not self.functional.border.draws
        kept, steps = None if zero else traces, self.running_index.value
        return params, State(carry, kept, steps, self.etrace.fingerprint)

    @property
    def _core(self) -> ModuleLearner:
        return self.functional

    def _inputs(self, x: PyTree) -> tuple[PyTree, ...]:
        """The inputs of the model: one, or a tuple of them where it takes several."""
        several = len(self.functional.cell.x.structure.children()) > 1
        return tuple(x) if several and isinstance(x, (tuple, list)) else (x,)

    def _move(self, new: State, *, hidden: bool = True) -> None:
        """Take over a state of the functional learner; without `hidden` only statistics and
        keys.
        """
        try:
            self.functional.write(new.carry, hidden=hidden)
            if hidden:
                self.etrace.value = new.traces
                self.running_index.value = new.steps
        except brainstate.TraceContextError as error:
            raise UsageError(
                "The learner is called inside a transformation of JAX.",
                got=first_line(error),
                expected="a transformation of brainstate, which knows the states that it writes",
                do="use brainstate.transform (jit, vmap, for_loop, ...); to map over samples "
                "compile with vmap=True",
            ) from error

    @property
    def _own_states(self) -> list[brainstate.State]:
        """The learner's states beside the model's."""
        return [self.etrace, self.running_index]

    @contextlib.contextmanager
    def _calling(self, call: Callable[[tuple[PyTree, ...]], PyTree] | None) -> Iterator[None]:
        """Inside, the learner's calls go to `call`; with None they are the ordinary ones."""
        before, self._active = self._active, call
        try:
            yield
        finally:
            self._active = before

    def _forward(self, inputs: tuple[PyTree, ...]) -> PyTree:
        """One step of the model that counts, nothing learned."""
        out = self.functional.forward(one_step(inputs))
        self.running_index.value = counted(self.running_index.value, 1)
        return out

    # States
    # ----------------------------------------------------------------------------------------------

    def reset_state(
        self, batch_size: int | None = None, *, model: bool = False, key: Key | None = None
    ) -> None:
        """Set the traces and `running_index` to zero; with `model`, short-term states to their
        values at compile time.

        `batch_size`, when given, must be the compiled one: the layout of traces never changes after
        compiling. `key`: as in `init_etrace_state`.
        """
        functional = self.functional
        if batch_size is not None and batch_size != functional.graph.batch_size:
            raise UsageError(
                "Another batch size than the compiled one.",
                got=batch_size,
                expected=functional.graph.batch_size,
                do="compile again for another batch size",
            )
        self.init_etrace_state(key)
        self.running_index.value = no_steps()
        if flag("model", model):
            functional.write(owned(functional.initial), lasting=False)

    def init_etrace_state(self, key: Key | None = None) -> None:
        """Set the traces to zero, as `compile_graph` does at its end.

        The random numbers of an algorithm that draws, which are a part of `etrace`, go on, or begin
        again with a `key`, a whole number or a PRNG key; at first it is 0.
        """
        zero = self._clear()
        self.etrace.value = begun(zero, key, self.etrace.value)

    def _clear(self) -> PyTree:
        self.functional.zero = self.functional._programs.zero()
        return self.functional.zero
