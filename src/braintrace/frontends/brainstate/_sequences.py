"""`SequenceDriverMixin`: what a learner of a brainstate module does with whole sequences."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import brainstate
import jax
from jaxtyping import Array, Bool, Num, PyTree

from ...cell import check_driver, check_finite, check_loss, masked, reduced, sequence_length
from ...cell._arguments import Modulator, checked_window
from ...cell._user_step import check_takes
from ...compat import MultiStepData
from ...core._domains import choice, flag
from ...core._errors import UsageError
from ...core.analysis import Exactness
from ...gradients import GradientReport, inner_dtypes, judge, window_choice
from ...learner import Mode, Options, chunks_of, one_after_another
from ...learner._finite import check_moved
from ._one_step import OneStepMixin
from ._optimizer import unchanged_on_error, update_of
from ._states import all_or_nothing
from ._step import StepFunction, by_state
from ._windows import in_windows, steps_together

if TYPE_CHECKING:
    from ._algorithm import ETraceAlgorithm


class SequenceDriverMixin(OneStepMixin):
    """Sequence drivers, for whatever hands its calls to a learner: `ETraceAlgorithm`, `ETraceVmap`.

    A step function calls the learner once a step; the drivers then put the steps of a window
    together.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> model = brainstate.nn.Sequential(brainstate.nn.GRUCell(2, 3), brainstate.nn.Linear(3, 1))
    >>> learner = braintrace.compile(model, "d_rtrl", jnp.zeros((4, 2)), batch_size=4)
    >>> xs, ys = jnp.ones((10, 4, 2)), jnp.ones((10, 4, 1))
    >>> gradients, losses = learner.etrace_grad(
    ...     xs, ys, step_fn=lambda x, y: jnp.mean((learner(x) - y) ** 2), return_value=True
    ... )
    >>> losses.shape
    (10,)
    """

    __module__ = "braintrace"

    def etrace_grad(
        self,
        *sequences: PyTree,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        mask: Num[Array, "T ..."] | None = None,
        reset: Bool[Array, "T B"] | None = None,
        chunk_size: int | None = None,
        window: int | None = None,
        weights: PyTree = None,
        reduction: str = "mean",
        loss_output: str = "step",
        has_aux: bool = False,
        return_value: bool = False,
        return_state: bool = True,
        y_target: Num[Array, "*T B O"] | None = None,
        modulator: Modulator | None = None,
        return_info: bool = False,
        fidelity: bool = False,
        donate: bool = False,
    ) -> PyTree:
        """The gradient of a whole sequence, in memory that does not grow with its length.

        Args:
            *sequences: arrays (or trees of arrays) with time on axis 0; with `loss_fn` the inputs
                first, as one tuple for a model that takes several.
            loss_fn: `loss_fn(out, *targets)`: a scalar, or one value per sample, shape (B,). With
                `has_aux`, `(loss, aux)`.
            step_fn: instead of `loss_fn` a whole step, `step_fn(*slices)`, which calls `learner(x)`
                and returns the same.
            mask: weights of the losses: (T,) for a scalar loss, (T, B) for a loss with one value
                per sample. Where it is zero, what is not finite in the sequences is read as zero,
                as in `FunctionLearner.etrace_grad`: padding may hold NaN.
            reset: (T, B) bool: where true, that sample's short-term states are set to their values
                at compile time and its traces to zero before that step. The step must call the
                learner once.
            chunk_size: steps done at once (`window` is the same). It changes speed and memory,
                never the values beyond rounding. Default: as many as fit a memory budget, at most
                64 (8 or 16 where traces are factors, 64 of one sample). Of a learner compiled
                with `vjp_method='multi-step'` it is the length k of windows, where it is at least
                2: `step_fn` is given k steps at once, calls `learner(MultiStepData(x))` and returns
                k losses, (k,) or (k, B); the gradient is that of the multi-step form, and k divides
                the number of steps.
            weights: what to differentiate: `ParamState`s, or paths as in `model.states()`, in a
                list or dict. Default: all of the model's that are trained.
            reduction: 'mean' divides by the sum of the mask (without one: by the number of steps,
                or of step-samples); 'sum' does not.
            loss_output: 'step' (or 'per_step') returns losses as `step_fn` gave them, (T,) or (T,
                B); 'masked' these times the mask; 'total' (or 'scalar') the reduced scalar.
            has_aux: whether `step_fn` returns `(loss, aux)`; aux is returned stacked over time, or
                over windows.
            return_value: whether to return the losses.
            return_state: with False hidden states and traces are left as they were before the call
                (the end trace is then not formed, which is faster); random keys and statistics move
                on in any case.
            y_target: (T, B, n_target), for algorithms that project targets; it is weighted as the
                losses are.
            modulator: (T, B) or (T, B, n), for algorithms that are modulated; weighted as the
                losses are, see `FunctionLearner.etrace_grad`.
            return_info: whether to return the `Info` of the sequence behind everything else.
            fidelity: whether to return it with the fidelity of the gradient, see `FunctionLearner`.
            donate: gives what `etrace` holds away, for a step that calls the learner once: see
                `FunctionLearner`.

        Returns:
            The gradients as `brainstate.transform.grad(f, model.states(brainstate.ParamState))`
            gives them; a tuple with whatever else is asked for: gradients, losses, aux, `Info`.

        Raises:
            UsageError: for arguments that do not fit, and when a loss, a gradient or a state is not
                finite (eager calls). States are as before.
        """
        learner, together = self._driven, steps_together(self._driven, chunk_size, window)
        window = chunk_size if window is None else window
        step_fn = _step_of(self, loss_fn, step_fn, sequences, together)
        _checked(learner, sequences, step_fn)
        choice("loss_output", loss_output, ("step", "masked", "total", "per_step", "scalar"))
        flags = return_value, has_aux, return_info
        for name, value in zip(("return_value", "has_aux", "return_info"), flags, strict=True):
            flag(name, value)
        wanted, put_together = _wanted(learner, weights)
        how = Options(
            mask, reset, window, reduction, return_state, y_target, modulator, fidelity, donate
        )
        if together:
            sequences = in_windows(sequences, together)
        step = StepFunction.of(learner, step_fn, has_aux, sequences, wanted, together)
        step.check(how)
        if how.fidelity:
            step.check_windowed("For the fidelity of a gradient")
        gradients, info = step.gradient(sequences, how)
        result, losses = [put_together([gradients[id(s)] for s in wanted])], info.losses
        if return_value:
            if loss_output in ("total", "scalar"):
                losses = reduced(losses, mask, reduction)
            elif loss_output == "masked" and mask is not None:
                losses = masked(losses, mask)
            result.append(losses)
        if has_aux:
            result.append(info.aux)
        if return_info or fidelity:
            result.append(info)
        return result[0] if len(result) == 1 else tuple(result)

    def etrace_fit(
        self,
        *sequences: PyTree,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        optimizer: Any,
        mode: Mode = None,
        **options: Any,
    ) -> PyTree:
        """Learn from one sequence with an optimiser; returns the losses, with `has_aux` (losses,
        aux), with the `Info` behind them where it is asked for.

        Args:
            *sequences, loss_fn, step_fn: as for `etrace_grad`.
            optimizer: an optax optimiser, whose state the learner keeps from its first call on; or
                an object with `update(gradients)`, such as those of braintools.optim, with the
                model's parameters registered.
            mode: 'A' updates once, with the gradient of the sequence; 'O' at every step, with the
                gradient of that step's loss; a whole number k after every k steps. Default: the
                algorithm's own (OTTT), else 'A'.
            **options: of `etrace_grad`, but for `return_value`: the losses are returned. But for
                mode 'A' each update moves the states on, and `return_state` is not looked at; in
                mode 'O' each window of the multi-step form (`chunk_size`) updates. `loss_output` is
                then 'step' or 'masked'.

        Raises:
            UsageError: for an option that does not fit; else as `etrace_grad`.
        """
        if "return_value" in options:
            raise UsageError(
                "etrace_fit has no return_value.",
                got=f"return_value={options['return_value']!r}",
                do="leave it out: the losses are returned in any case",
            )
        learner = self._driven
        update = update_of(learner, optimizer, *_wanted(learner, options.get("weights")))

        def learned(*sequences: PyTree, **options: Any) -> PyTree:
            with unchanged_on_error(learner):
                gradients, *rest = self.etrace_grad(
                    *sequences, loss_fn=loss_fn, step_fn=step_fn, return_value=True, **options
                )
                update(gradients)
            return tuple(rest) if len(rest) > 1 else rest[0]

        together = steps_together(learner, options.get("chunk_size"), options.get("window"))
        chunks = chunks_of(mode, learner._rule, sequences, options, together)
        if chunks is None:
            return learned(*sequences, **options)
        if options.get("loss_output") in ("total", "scalar"):
            raise UsageError(
                "With an update at every step there is no total of the losses.",
                got=f"mode={mode or 'O'!r}, loss_output={options['loss_output']!r}",
                expected="loss_output='step', or mode='A'",
                do="add up the losses that are returned",
            )
        _checked(learner, sequences, step_fn)
        one = lambda slices, given: learned(*slices, **given, **chunks.fixed)
        with all_or_nothing():
            before = learner._now()
            result = one_after_another(_looped(one, chunks.sequences, chunks.timed))
            losses = result[0] if isinstance(result, tuple) else result
            check_finite(losses, options.get("mask"))
            check_moved(learner.functional, before, learner._now())
        return result

    def etrace_evolve(
        self,
        *sequences: PyTree,
        return_outputs: bool = False,
        step_fn: Callable[..., PyTree] | None = None,
        chunk_size: int | None = None,
        window: int | None = None,
        traces: bool = True,
    ) -> PyTree:
        """Drive the model over a sequence without a gradient, for a warm-up or an evaluation.

        Args:
            *sequences: the inputs, time on axis 0; with `step_fn`, its arguments.
            return_outputs: whether to hold the outputs and return them, stacked over time; else
                None is returned, and a long warm-up needs no memory for them.
            step_fn: what to do at each step instead of `learner(*slices)`.
            chunk_size: steps done at once (`window` is the same): speed and memory, never values.
                Of a learner that was compiled with `vjp_method='multi-step'` it is the length of
                windows, as in `etrace_grad`; outputs are then stacked over windows.
            traces: whether the traces move on too, so that a gradient taken afterwards reaches back
                into this sequence. False leaves them as they are, which is faster: for an
                evaluation, or where `reset_state` follows.
        """
        learner, together = self._driven, steps_together(self._driven, chunk_size, window)
        _checked(learner, sequences, step_fn)
        window = checked_window(chunk_size if window is None else window)
        for name, value in (("return_outputs", return_outputs), ("traces", traces)):
            flag(name, value)
        windows = in_windows(sequences, together) if together else sequences
        if step_fn is None:
            options: Any = {"traces": traces, "window": window, "return_outputs": return_outputs}
            params, state = learner._now()
            new, outs = learner.functional.etrace_evolve(params, state, sequences, **options)
            learner._move(new)
            return in_windows(outs, together) if together and return_outputs else outs
        nested = StepFunction.of(learner, step_fn, False, windows, [], together).nested
        step = step_fn if return_outputs else lambda *slices: (step_fn(*slices), None)[1]
        before = learner.etrace.value
        with learner._calling(None if traces or nested else learner._forward):
            outs = _looped(step, *windows)
        if not traces:
            learner.etrace.value = before  # a program that the step has kept moves them
        return outs

    def check_gradients(
        self,
        *sequences: PyTree,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        tolerance: float | None = None,
        **options: Any,
    ) -> GradientReport:
        """Compare the gradient of a sequence with BPTT through the same step function, parameter by
        parameter.

        Both start at the model's present states, the online one with zero traces; every state is as
        before at the end.

        Args:
            *sequences, loss_fn, step_fn: as for `etrace_grad`; `step_fn` calls the learner once.
            tolerance: relative error up to which a gradient counts as equal, as for
                `braintrace.checks.check_gradients`.
            **options: mask, reset, reduction, window, y_target and modulator, as for `etrace_grad`;
                or `windows`, which must all give the same gradient: `(None, 1)`, say.
        """
        learner, core = self._driven, self._driven.functional
        step_fn = _step_of(self, loss_fn, step_fn, sequences, None)
        _checked(learner, sequences, step_fn)
        chosen = window_choice(options.pop("window", None), options.pop("windows", ()), tolerance)
        wanted, together = _wanted(learner, None)
        step = StepFunction.of(learner, step_fn, False, sequences, wanted)
        step.check(Options(**options))
        step.check_windowed("For BPTT")
        params, state = learner._now()
        start = core.fresh(params, state)

        def tree_of(leaves: Sequence[Any]) -> PyTree:
            found = by_state(core.module.params, leaves)
            return together([found[id(s)] for s in wanted])

        def online(window: int | None) -> PyTree:
            given = Options(window=window, **options)
            (gradients, _), *_ = step.taken(params, start, sequences, given)
            return tree_of(gradients)

        rows = jax.tree_util.tree_flatten_with_path(tree_of(core.graph.parameters))[0]
        return judge(
            {window: online(window) for window in chosen},
            tree_of(step.bptt(sequences, Options(**options))),
            {jax.tree_util.keystr(path): row for path, row in rows},
            tolerance,
            inner_dtypes(core.graph, core.rule),
        )


def _looped(step: Callable[..., PyTree], *sequences: PyTree) -> PyTree:
    """`for_loop`, jitted, so that its program goes with it."""
    transform: Any = brainstate.transform
    return transform.jit(lambda *given: transform.for_loop(step, *given))(*sequences)


@dataclasses.dataclass(frozen=True)
class _LossOfOutput:
    """A step function that takes a loss of the learner's output; of each step's, where it is given
    windows.
    """

    learner: Any  # or its map
    loss_fn: Callable[..., PyTree]
    of_windows: bool

    def __call__(self, x: PyTree, *targets: PyTree) -> PyTree:
        inputs = self.learner._driven._inputs(x)
        if not self.of_windows:
            return self.loss_fn(self.learner(*inputs), *targets)
        outs = self.learner(*map(MultiStepData, inputs))
        return jax.vmap(self.loss_fn)(outs, *targets)


def _step_of(
    learner: SequenceDriverMixin,
    loss_fn: Callable[..., PyTree] | None,
    step_fn: Callable[..., PyTree] | None,
    sequences: tuple[PyTree, ...],
    together: int | None,
) -> Callable[..., PyTree]:
    """The step function: that of the user, or one for a loss of the output."""
    if loss_fn is not None and step_fn is None:
        check_loss(loss_fn, None, len(sequences), learner._driven.functional._called)
        return _LossOfOutput(learner, loss_fn, together is not None)
    if loss_fn is not None or step_fn is None:
        raise UsageError(
            "The loss is said in one way.",
            got="loss_fn and step_fn" if loss_fn is not None else "neither",
            expected="loss_fn(out, *targets), or step_fn(*slices), which calls learner(x)",
            do="pass one of them by its name, as in loss_fn=f",
        )
    return step_fn


def _checked(learner: "ETraceAlgorithm", sequences: tuple[PyTree, ...], step_fn: object) -> None:
    """Check what every driver is given."""
    learner.functional.check_states()
    if not sequences:
        raise UsageError(
            "No sequence.",
            expected="arrays with time on axis 0",
            do="etrace_grad(xs, ys, loss_fn=f)",
        )
    if step_fn is not None:
        check_takes("step_fn", step_fn, len(sequences), "one slice of each sequence")
    if learner._active is not None:
        raise UsageError(
            "A sequence driver is called inside a step function.", do="call learner(x) there"
        )
    check_driver(sequence_length(sequences[0]), sequences[1:], "mean", None)


def _wanted(
    learner: "ETraceAlgorithm", weights: PyTree
) -> tuple[list[brainstate.State], Callable[[list[PyTree]], PyTree]]:
    """The states to differentiate by, and how their gradients are put together."""
    state_of = lambda w: w if isinstance(w, brainstate.State) else learner._parameter(w)
    if weights is None:
        core = learner.functional  # a state is wanted that is trained in part
        rows = zip(core.graph.parameters, core.module.params.leaf_states(), strict=True)
        trained = {s for row, s in rows if row.exactness is not Exactness.FROZEN}
        weights = {k: s for k, s in learner.param_states.items() if s in trained}
    if isinstance(weights, dict):
        keys = list(weights)
        states = [state_of(w) for w in weights.values()]
        return states, lambda found: dict(zip(keys, found, strict=True))
    if isinstance(weights, (list, tuple)):
        return [state_of(w) for w in weights], type(weights)
    return [state_of(weights)], lambda found: found[0]
