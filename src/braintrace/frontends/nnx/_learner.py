"""A learner of an NNX module: itself a module, which holds the model, the carry and the traces."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import errors, nnx
from jaxtyping import Array, Bool, Num, PyTree

from ...cell import Values, check_finite, check_loss, check_values
from ...cell._arguments import Modulator
from ...core._domains import arrays, flag
from ...core._errors import UsageError, first_line
from ...core.engine import Rule
from ...core.traces import begun
from ...gradients import GradientReport
from ...learner import (
    Info,
    Key,
    Mode,
    Objective,
    Options,
    Shardings,
    State,
    as_sequence,
    chunks_of,
    divided_as,
    in_front,
    one_after_another,
    packed,
    shallow_copy,
    taking_gradients,
    value_of,
)
from ...learner._finite import check_moved
from ._core import Core, EligibilityTrace, HiddenCarry, made_again
from ._module import functionalise
from ._views import LearnerViews


class NNXLearner(LearnerViews, nnx.Module):
    """An online learner of an NNX module; made by `braintrace.compile`. Call it where you called
    the model.

    It is an NNX module: pass it to `nnx.jit`, `nnx.grad` and the other transformations beside the
    optimizer, or take it apart with `nnx.split` for `jax.jit`, `jax.lax.scan` and checkpoints.
    Parameters are read from the live model at each call. `nnx.grad` of a loss of `learner(x)` gives
    the online gradient of that step; no gradient leaves a call through the old carry or the traces,
    which hold the past already.

    Example:
        >>> import braintrace, jax.numpy as jnp, optax
        >>> from flax import nnx
        >>> cell = nnx.GRUCell(3, 4, rngs=nnx.Rngs(0))
        >>> learner = braintrace.compile(cell, "d_rtrl", jnp.zeros((2, 3)), carry=jnp.zeros((2, 4)))
        >>> optimizer = nnx.Optimizer(cell, optax.sgd(0.1), wrt=nnx.Param)
        >>> loss, gradients = learner.value_and_grad(
        ...     jnp.ones((2, 3)), loss_fn=lambda h: jnp.mean(h**2)
        ... )
        >>> _ = optimizer.update(cell, gradients)
        >>> gradients["dense_h"]["kernel"].shape
        (4, 12)
        >>> graphdef, traces, rest = nnx.split(learner, type(learner.traces), ...)
        >>> list(traces)
        ['traces']

    Attributes:
        model: the module, as given; Variables that a step writes (state, statistics, random
            streams) move on as they would when it is called itself.
        carry: the model's carry (`model(carry, x) -> (carry, out)`), in a Variable; a Variable of
            None for `model(x) -> out`.
        traces: a Variable of the eligibility traces; `type(learner.traces)` selects it in
            `nnx.split` and `nnx.state` (`braintrace.EligibilityTrace` is brainstate's).
        steps: int32 Variable, the number of steps consumed; it stops at its largest value.
    """

    __module__ = "braintrace"

    def __init__(
        self,
        model: nnx.Module,
        rule: Rule,
        inputs: tuple[PyTree, ...],
        given: Mapping[str, Any],
        **analysis: Any,
    ):
        inputs = arrays("example input", inputs)
        carry = arrays("carry", given.get("carry"))
        do = "pass jnp.zeros of these shapes, say; for the inputs shapes are enough"
        check_values(carry, "The learner of an NNX module holds its carry.", do)
        wrt, vmap = given.get("wrt", nnx.Param), given.get("vmap", False)
        functional = functionalise(model, wrt, carry, inputs, vmap)
        params, start = functional.read(model, carry)
        self.model = model
        self._functional = functional
        self._inputs_count = len(inputs)
        self._core = Core(
            functional.cell,
            rule,
            params,
            start,
            inputs,
            batch=functional.batch(given, carry, start, inputs),
            resets=functional.resets,
            rows=len(functional.trained.names),
            **analysis,
        )
        self._core.given = {k: v for k, v in given.items() if k != "carry"}
        self._core.options = analysis
        first = self._core.init(params, start)
        self.carry = HiddenCarry(functional.user_carry(first.carry))
        # the fingerprint goes where the traces go, `nnx.state` and `nnx.update` included
        self.traces = EligibilityTrace(first.traces, fingerprint=first.fingerprint)
        self.steps = nnx.Variable(first.steps)

    __copy__ = shallow_copy

    def __reduce__(self) -> Any:
        core, carry = self._core, self._functional.user_carry(self._core.initial)
        given = core.given if carry is None else {**core.given, "carry": carry}
        now = core.initial, self.carry.get_value(), self.traces.get_value(), self.steps.get_value()
        made = self.model, core.rule, core.cell.x.shapes, given, core.options
        return packed(functools.partial(made_again, type(self), made, now))

    # One step
    # ----------------------------------------------------------------------------------------------

    def __call__(
        self,
        *inputs: PyTree,
        y_target: Num[Array, "B O"] | None = None,
        modulator: Modulator | None = None,
    ) -> PyTree:
        """One step, as `FunctionLearner.update`: the output. The model and the traces move on."""
        new, out = self._core.update(*self._now(), inputs, y_target=y_target, modulator=modulator)
        self._move(new)
        return out

    def value_and_grad(
        self,
        x: PyTree,
        *targets: PyTree,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        mask: Num[Array, "..."] | None = None,
        reduction: str = "mean",
        has_aux: bool = False,
        y_target: Num[Array, "B O"] | None = None,
        modulator: Modulator | None = None,
        donate: bool = False,
    ) -> PyTree:
        """One step: `(loss, gradients)`; carry, Variables and traces move on.
        `optimizer.update(model, gradients)` takes them.

        Args:
            x: the model's input; a tuple of them for a model that takes several.
            *targets: handed to `loss_fn`.
            loss_fn: `loss_fn(out, *targets)`: a scalar, or one value per sample. With `has_aux`,
                `(loss, aux)`.
            step_fn, mask, reduction, y_target, modulator, donate: as in `etrace_grad`, without
                time.

        Returns:
            `(loss, gradients)`, with `has_aux` `((loss, aux), gradients)`.
        """
        how = as_sequence(self.rule, mask, reduction, has_aux, y_target, modulator, donate)
        how |= {"loss_fn": loss_fn, "step_fn": step_fn}
        check_loss(loss_fn, step_fn, 1 + len(targets), "model")
        sequences = in_front("input x", x), *in_front("target", targets)
        gradients, info = self.etrace_grad(*sequences, **how)
        return value_of(info, how), gradients

    # Sequences
    # ----------------------------------------------------------------------------------------------

    def etrace_grad(
        self,
        xs: PyTree,
        *targets: PyTree,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        mask: Num[Array, "T ..."] | None = None,
        reset: Bool[Array, "T B"] | None = None,
        window: int | None = None,
        reduction: str = "mean",
        has_aux: bool = False,
        return_state: bool = True,
        y_target: Num[Array, "*T B O"] | None = None,
        modulator: Modulator | None = None,
        fidelity: bool = False,
        donate: bool = False,
        shardings: Shardings | None = None,
    ) -> tuple[nnx.State, Info]:
        """The gradient of a whole sequence at the memory of one window: `(gradients, Info)`.

        Args:
            xs: inputs, time on axis 0 of every array; a tuple for a model that takes several.
            *targets: further sequences, time on axis 0, handed to `loss_fn` step by step.
            loss_fn: `loss_fn(out_t, *target_t)`: a scalar, or one value per sample, shape (B,).
                With `has_aux`, `(loss, aux)`.
            step_fn: instead of `loss_fn` a whole step, `step_fn(model, call, x_t, *target_t)`,
                which takes the model's step once, `out = call(x)`, and returns the same. `model` is
                a copy whose Variables are those of this step; what the step does with its
                parameters beside the call has its ordinary gradient, of the loss of the same step.
            return_state: with False carry, hidden Variables and traces are left as they were before
                the call (the end trace is then not formed, which is faster); statistics and random
                streams move on in any case.
            reset: (T, B) bool: where true, that sample's carry and hidden Variables are set to
                their values at compile time and its traces to zero before that step.
            mask, window, reduction, has_aux, y_target, modulator, fidelity, shardings: see
                `FunctionLearner`.
            donate: gives what `traces` holds away: see `FunctionLearner`.

        Returns:
            The gradients, an `nnx.State` of what `wrt` selects, and the `Info` of the losses.

        Raises:
            UsageError: for arguments that do not fit, and when a loss, a gradient or the state is
                not finite (eager calls). All Variables are as before.
        """
        params, state = self._now()
        check_loss(loss_fn, step_fn, 1 + len(targets), "model")
        objective = Objective.of(loss_fn, step_fn, has_aux, self._core.user_step)
        signals = y_target, modulator, fidelity, donate, shardings
        how = Options(mask, reset, window, reduction, return_state, *signals)
        given = params, state, (xs if loss_fn is None else self._inputs(xs), *targets)
        (leaves, _), new, info, _ = self._core.sequence_gradient(*given, objective, how)
        self._move(new, hidden=return_state)
        return self._functional.gradients(leaves), info

    def etrace_fit(
        self,
        xs: PyTree,
        *targets: PyTree,
        optimizer: nnx.Optimizer,
        mode: Mode = None,
        **options: Any,
    ) -> Info:
        """Learn from one sequence; returns its `Info`.

        Args:
            xs, *targets: as for `etrace_grad`.
            optimizer: an `nnx.Optimizer` of the model, with the filter that was compiled
                (`learner.wrt`).
            mode: 'A' updates once, with the gradient of the sequence; 'O' at every step, with the
                gradient of that step's loss; a whole number k after every k steps. Default: the
                algorithm's own (OTTT), else 'A'.
            **options: of `etrace_grad`, `loss_fn` or `step_fn` first. But for mode 'A' each update
                moves the state on, and `return_state` is not looked at.
        """
        if not isinstance(optimizer, nnx.Optimizer):
            raise UsageError(
                "This is no optimizer of NNX.",
                got=type(optimizer).__name__,
                expected="an nnx.Optimizer, which holds the model's parameters",
                do="pass nnx.Optimizer(model, optimizer, wrt=learner.wrt)",
            )
        chunks = chunks_of(mode, self.rule, (xs, *targets), options)
        if chunks is None:
            _, before = self._now()
            gradients, info = self.etrace_grad(xs, *targets, **options)
            try:
                with taking_gradients("an nnx.Optimizer made with wrt=learner.wrt"):
                    optimizer.update(self.model, gradients)
            except UsageError:
                self._move(before)
                raise
            return info
        graphdef, state = nnx.split((self, optimizer))

        def one(state: PyTree, at: PyTree) -> tuple[PyTree, Info]:
            learner, tuner = nnx.merge(graphdef, state)
            sequences, given = at
            gradients, info = learner.etrace_grad(*sequences, **given, **chunks.fixed)
            tuner.update(learner.model, gradients)
            return nnx.state((learner, tuner)), info

        # jitted, so that its program goes with it
        scan = jax.jit(lambda state, at: jax.lax.scan(one, state, at))
        state, info = scan(state, (chunks.sequences, chunks.timed))
        info = one_after_another(info)
        check_finite(info.losses, options.get("mask"))
        check_moved(self._core, self._now(), nnx.merge(graphdef, state)[0]._now())
        nnx.update((self, optimizer), state)
        return info

    def etrace_evolve(
        self,
        xs: PyTree,
        *,
        traces: bool = True,
        window: int | None = None,
        return_outputs: bool = True,
    ) -> PyTree:
        """Forward only over a sequence, for a warm-up or an evaluation: the outputs, stacked over
        time; None, and nothing held, without `return_outputs`.

        The traces move on too, so that a gradient taken afterwards reaches back into this sequence;
        with `traces=False` they stay as they are, which is faster. `window` steps are done at once,
        as in `etrace_grad`.
        """
        params, state = self._now()
        given = {"traces": traces, "window": window, "return_outputs": return_outputs}
        new, outs = self._core.etrace_evolve(params, state, self._inputs(xs), **given)
        self._move(new)
        return outs

    def check_gradients(self, xs: PyTree, *targets: PyTree, **options: Any) -> GradientReport:
        """Compare the gradient of a sequence with BPTT, parameter by parameter:
        `braintrace.checks.check_gradients`.

        Both start at the present state, the online one with zero traces; all stays as it was.
        """
        params, state = self._now()
        fresh = self._core.fresh(params, state)
        given = xs if options.get("step_fn") is not None else self._inputs(xs)
        return self._core.check_gradients(params, fresh, given, *targets, **options)

    # State
    # ----------------------------------------------------------------------------------------------

    def reset_state(self, *, model: bool = False, key: Key | None = None) -> None:
        """Set the traces and `steps` to zero; with `model`, carry and hidden Variables to their
        values at compile time. Statistics and random numbers go on; those of an algorithm that
        draws begin again with a `key`, as in `FunctionLearner.init`.
        """
        first = self._core.init(self._now()[0], self._core.initial)
        before = self.traces.get_value()
        self.traces.set_value(divided_as(begun(first.traces, key, before), before))
        self.steps.set_value(divided_as(first.steps, self.steps.get_value()))
        if flag("model", model):
            carry = divided_as(first.carry, self._now()[1].carry)
            self.carry.set_value(self._functional.user_carry(carry))
            self._functional.write(self.model, carry, lasting=False)

    def _inputs(self, xs: PyTree) -> tuple[PyTree, ...]:
        if (count := self._inputs_count) == 1:
            return (xs,)
        if not isinstance(xs, (tuple, list)) or len(xs) != count:
            raise UsageError(
                "The model takes several inputs.",
                got=type(xs).__name__,
                expected=f"a tuple of {count}, as compiled",
                do="pass the inputs of the sequence as one tuple",
            )
        return tuple(xs)

    def _now(self) -> tuple[Values, State]:
        """The params and the state of the core."""
        params, carry = self._functional.read(self.model, self.carry.get_value())
        traces, steps = self.traces.get_value(), self.steps.get_value()
        return params, State(carry, traces, steps, self.traces.get_metadata("fingerprint", None))

    def _move(self, new: State, *, hidden: bool = True) -> None:
        try:
            self._functional.write(self.model, new.carry, hidden=hidden)
            if hidden:
                self.carry.set_value(self._functional.user_carry(new.carry))
                self.traces.set_value(new.traces)
                self.steps.set_value(new.steps)
        except errors.TraceContextError as error:
            raise UsageError(
                "The learner is called inside a transformation that it is no argument of.",
                got=first_line(error),
                expected="the learner as an argument of nnx.jit, nnx.vmap, nnx.scan, ...",
                do="pass it to a transformation of NNX; for those of JAX take it apart with "
                "nnx.split(learner)",
            ) from error
