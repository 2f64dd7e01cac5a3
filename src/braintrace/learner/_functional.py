"""The functional learner, on which every front end stands: pure methods on a cell."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
from jaxtyping import PyTree

from ..cell._arguments import (
    Mask,
    Modulator,
    Reset,
    Timed,
    check_driver,
    check_reset,
    checked_modulator,
    checked_target,
    sequence_length,
)
from ..cell._samples import check_finite
from ..cell._user_step import NOTHING, Outside, UserStep, check_loss, plain_user_step, user_step
from ..core._domains import flag
from ..core._errors import UsageError
from ..core.engine import step_signals, taken
from ..core.traces import begun, with_key
from ..gradients import GradientReport, check_gradients
from ..reports import CompilationReport, NamedGraph, Path
from ._compiled import Compiled
from ._finite import check_results, first_input, of_gradients, of_state
from ._fit import Mode, fit_sequence
from ._objective import Given, Objective, Options, Plan, Target
from ._serialization import offer_to_flax
from ._shardings import Shardings, checked_shardings
from ._state import Info, Key, State, no_steps, owned


class FunctionLearner(Compiled):
    """An online learner of a cell `(params, carry, x) -> (carry, out)`; made by
    `braintrace.compile`.

    The batch is axis 0 of every array of the carry and of x. All methods are pure: the
    state goes in and comes out. They work under `jax.jit`, `jax.vmap` (over seeds, say) and inside
    `jax.lax.scan`, and steps under `jax.grad`; eager calls are compiled once for each shape.

    Attributes:
        function: the cell, as given.
        initial: the carry that was compiled.
        rule: the parts of the algorithm.
        cell: the analysed cell.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    >>> state, out = learner.update(params, learner.init(params, h), xs[0])  # one step
    >>> loss = lambda out: out.sum(-1)
    >>> gradients, state, info = learner.etrace_grad(params, state, xs, loss_fn=loss)  # a sequence
    >>> gradients["w"].shape, info.losses.shape, int(state.steps)
    ((2, 3), (4, 1), 5)
    """

    _called = "params"  # what a user's step has in front

    @functools.cached_property
    def report(self) -> CompilationReport:
        """What the compiler states: for each parameter its sites, traces and certificate, and every
        dropped path.
        """
        graph = NamedGraph(self.cell, *self._named())
        return CompilationReport(graph, self.rule.carrier, self.rule.name)

    def _named(self) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """The paths of the parameters, and of the leaves of the carry."""
        rows, names = self.graph.parameters, self.cell.carry.names
        return tuple((row.path,) for row in rows), tuple((name,) for name in names)

    @property
    def reset_axes(self) -> PyTree:
        """Where each leaf of the carry has the samples that a reset starts again; None where it
        leaves the leaf as it is.
        """
        axes = {self.cell.leaf_numbers[k]: self.graph.leaf_axis(k) for k in self._resettable}
        return self.cell.carry.unflatten([axes.get(n) for n in range(len(self.cell.carry.leaves))])

    def trained(self, params: PyTree) -> PyTree:
        """`params` with None in place of whatever has no gradient: what an optimiser is initialised
        with.
        """
        live = jax.tree.structure(params).unflatten(self._live)
        return jax.tree.map(lambda v, live: v if live else None, params, live)

    def init(
        self,
        params: PyTree,
        carry: PyTree,
        *,
        traces: bool = True,
        key: Key = 0,
        shardings: Shardings | None = None,
    ) -> State:
        """The state before the first step: a copy of `carry` and zero traces.

        Args:
            params, carry: as compiled.
            traces: with False no trace is formed yet; `etrace_grad` then starts from zero without
                reading one. An algorithm that draws has its key in them, and forms them.
            key: a whole number or a PRNG key, for the algorithms that draw (`uoro`, `kf_rtrl`,
                `ok_rtrl`); the others take it, and nothing depends on it. The same key gives the
                same numbers, so give each sequence its own, or go on with the state and `reset`.
                `jax.vmap` over keys is a set of independent estimates.
            shardings: of `learner.shardings`: the state is divided between the devices from the
                start, and no device ever holds all of a divided trace.
        """
        offer_to_flax()
        flat = self._flat(params)
        start = self.cell.carry.unflatten(owned(self.cell.carry.flatten(carry, "carry")))
        formed = flag("traces", traces) or self.border.draws
        if (shardings := checked_shardings(shardings)) is not None:
            zero = with_key(self._programs.divided_zero(shardings) if formed else None, key)
            state = State(start, zero, no_steps(), self.border.fingerprint)
            like = shardings.state
            return jax.device_put(state, like if formed else dataclasses.replace(like, traces=None))
        zero = self._programs.zero(flat, self.cell.carry.apart(start)) if formed else None
        return State(start, with_key(zero, key), no_steps(), self.border.fingerprint)

    def fresh(self, params: PyTree, state: State) -> State:
        """The state with zero traces; what the algorithm has learned and its draws stay."""
        self.border.check(state)
        zero = self.init(params, state.carry)
        return dataclasses.replace(zero, traces=begun(zero.traces, None, state.traces))

    def update(
        self,
        params: PyTree,
        state: State,
        x: PyTree,
        *,
        y_target: Target = None,
        modulator: Modulator | None = None,
    ) -> tuple[State, PyTree]:
        """One step: `(new state, out)`.

        `jax.grad` of any loss of `out`, or of the new state's carry, with respect to `params` is
        the online gradient of this step, and with respect to `x` the ordinary one. No gradient
        leaves through the incoming state; second derivatives and forward mode are refused.
        `y_target`, for algorithms that project targets: (B, n_target). `modulator`, for those that
        are modulated: a number for each sample, (B,), or for each neuron of the activity, (B, n);
        where several hidden groups are read, also a list with one for each.
        """
        start, xs = self._start(params, state), self._inputs(x)
        y = None if y_target is None else checked_target(y_target)
        m = None if modulator is None else checked_modulator(modulator)
        signals = step_signals(self.graph, y, m, self.rule.target_timing)
        return self._moved(state, 1, (), *self._programs.update(*start, xs, signals))

    __call__ = update

    def update_window(
        self, params: PyTree, state: State, xs: Timed, *, full: bool = False
    ) -> tuple[State, Timed]:
        """Several steps at once (`xs` time first), as `update`: their outputs, stacked.

        Differentiating gives the sum of the steps' online gradients; with `full=True` BPTT inside
        the window plus the traces at its entry (the multi-step VJP), which is another number. A
        state that comes to its own next value through products alone has no trace.
        """
        steps = sequence_length(xs)
        if flag("full", full) and self.rule.multi_step_problem:
            raise UsageError(
                f"{self.rule.name} has no multi-step form.",
                got="full=True",
                do=self.rule.multi_step_problem,
            )
        if (names := taken(self.graph)) and self.rule.target_timing != "sequence-end":
            raise UsageError(
                f"{self.rule.name} has no window of outputs.",
                got=f"no {names[0]}, which it takes at each step",
                do="use update, or a sequence driver such as etrace_grad",
            )
        start, leaves = self._start(params, state), self._inputs(xs, (steps,))
        return self._moved(state, steps, leaves, *self._programs.window(*start, leaves, full=full))

    def etrace_grad(
        self,
        params: PyTree,
        state: State,
        xs: Timed,
        *targets: Timed,
        loss_fn: Callable[..., PyTree] | None = None,
        step_fn: Callable[..., PyTree] | None = None,
        mask: Mask | None = None,
        reset: Reset | None = None,
        window: int | None = None,
        reduction: str = "mean",
        has_aux: bool = False,
        return_state: bool = True,
        y_target: Target = None,
        modulator: Modulator | None = None,
        fidelity: bool = False,
        shardings: Shardings | None = None,
    ) -> tuple[PyTree, State | None, Info]:
        """The gradient of a whole sequence at the memory of one window: `(gradients, state, Info)`,
        whose derivatives with respect to these arguments are refused.

        Args:
            params: the parameters, as compiled.
            state: the state before the sequence.
            xs: inputs, time on axis 0 of every array.
            *targets: further sequences, time on axis 0, handed to `loss_fn` step by step.
            loss_fn: `loss_fn(out_t, *target_t)`: a floating-point scalar, or one value per sample,
                shape (B,). With `has_aux`, `(loss, aux)`. B is that of the batch analysis; a vector
                of B values that is proven to run along another axis of the outputs is refused.
            step_fn: instead of `loss_fn` a whole step, `step_fn(params, call, x_t, *target_t)`,
                which takes the cell's step once, `out = call(x)`, and returns the same. It may
                prepare the input and read params itself: what it does with them beside the call has
                its ordinary gradient, of the loss of the same step.
            mask: weights of the losses: (T,) for a scalar loss, (T, B) for a loss with one value
                per sample. Real and finite; at least 0, but for reduction='sum'. Where it is zero,
                inputs that are not finite are read as zeros, so that padding may hold NaN; finite
                ones are read as they are (a warm-up). `step_fn` gets all its slices so: by sample
                if the cell's inputs have the batch on axis 0.
            reset: (T, B) bool (or whole numbers, 0 and 1): where true, that sample's carry is set
                to the compiled carry and its traces to zero before x_t is consumed, whatever they
                were: NaN does not pass. Random keys and leaves of the carry without a batch axis
                stay as they are.
            window: steps done at once; it changes speed and memory, never the values beyond
                rounding. Default: as many as fit a memory budget, at most 64 (16 where traces are
                factorised, 64 of one sample).
            reduction: 'mean' divides by the sum of the mask (without one: by the number of steps,
                or of step-samples); 'sum' does not.
            has_aux: whether `loss_fn` returns `(loss, aux)`.
            return_state: with False the end trace is not formed and None is returned in the state's
                place.
            y_target: for algorithms that project targets: (T, B, n_target), or, with
                target_timing='sequence-end', (B, n_target); it is weighted as the losses are.
            modulator: for algorithms that are modulated: (T, B) for each sample, or (T, B, n) for
                each neuron of the activity; where several hidden groups are read, also a list with
                one for each. It is weighted as the losses are.
            fidelity: whether `info.fidelity` says how good the gradient is: a `Fidelity` of each
                parameter, by its path. For `SK_RTRL` with its certificate it is made of the bounds
                of the steps, at next to no cost. For all others it is the comparison with BPTT over
                this sequence, both from the state at its start and without what the traces hold of
                the time before. It takes the time and, growing with T, the memory of BPTT, and
                where there are traces already a second online gradient, from zero ones: ask for it
                now and then. Where it is off it costs nothing: the program is the same.
            shardings: of `learner.shardings`: each device runs its own samples, and the gradient is
                added up over the devices once, at the end. Without it, or where samples are not
                proven to stay apart (in the step, and in a `loss_fn` of one value per sample), the
                values are the same, and XLA adds up the gradient of each window.

        Returns:
            The gradients (a tree like `params`, None for parameters that are not differentiable or
            not trained), the state after the sequence, and the losses.

        Raises:
            UsageError: for a wrong structure, shape, dtype, mask or reduction; in eager calls also
                for values of mask, reset, y_target and modulator, and when a loss, a gradient or
                the new state is not finite.
        """
        check_loss(loss_fn, step_fn, 1 + len(targets), self._called)
        objective = Objective.of(loss_fn, step_fn, has_aux, self.user_step)
        options = Options(
            mask, reset, window, reduction, return_state, y_target, modulator, fidelity, shardings
        )
        given = params, state, (xs, *targets), objective, options
        (gradients, _), new, info, _ = self.sequence_gradient(*given)
        found = iter(g for g in gradients if g is not None)
        leaves = [next(found) if live else None for live in self._live]
        tree = jax.tree.structure(params).unflatten(leaves)
        return tree, new if return_state else None, info

    def sequence_gradient(
        self,
        params: PyTree,
        state: State,
        sequences: tuple[PyTree, ...],
        objective: Objective,
        options: Options,
        outside: Outside = NOTHING,
    ) -> tuple[tuple[list[jax.Array], list[jax.Array]], State, Info, list[jax.Array]]:
        """As `etrace_grad`: (flat gradients of the model and of what is outside of it, state, info,
        the outside values that moved on). Without `return_state` the state has the traces that it
        had before.
        """
        start, (xs, *targets) = self._start(params, state, formed=False), sequences
        steps, reset = sequence_length(xs), options.reset
        check_driver(steps, targets, options.reduction, options.window)
        if not objective.is_step:
            xs = self.cell.x.unflatten(self._inputs(xs, (steps,)))
        marks = None if reset is None else check_reset(reset, steps, self.graph.batch_size)
        keep, formed = options.return_state, state.traces is not None
        division = None if options.shardings is None else options.shardings.division
        budget = self._budget_of(options.shardings)
        chosen = budget.window(steps, options.window, keep, formed)
        resets = () if reset is None else self._resettable
        how = options.reduction, chosen, keep, self._with_gradient, options.fidelity
        plan = Plan(resets, objective, *how, division)
        initial = [] if reset is None else self._initial_values()
        given = Given(
            (xs, *targets),
            marks,
            initial,
            options.mask,
            options.y_target,
            options.modulator,
            outside,
        )
        gradients, carry, traces, info, moved = self._programs.gradient(plan, *start, given)
        check_finite(info.losses, options.mask)
        before = start[1]
        made = of_state(self.cell, self.rule.carrier, before, carry, traces) if keep else []
        hint = lambda: first_input(self.graph, xs, options.mask, not objective.is_step)
        check_results([*of_gradients(self.graph, *gradients), *made], hint)
        kept = traces if keep else state.traces
        return gradients, self._after(state, steps, carry, kept), info, moved

    def user_step(self, step_fn: Callable[..., PyTree], has_aux: bool) -> UserStep:
        """`step_fn` as a step on the cell's params."""
        return user_step(step_fn, has_aux)

    def stepped(self, step_fn: Callable[..., PyTree]) -> Callable[..., PyTree]:
        """`(params, carry, slices) -> (carry, loss)`, the cell with a user's step around it, as
        BPTT differentiates it.
        """
        return plain_user_step(self.function, self.user_step(step_fn, has_aux=False))

    def etrace_fit(
        self,
        params: PyTree,
        opt_state: PyTree,
        state: State,
        xs: Timed,
        *targets: Timed,
        optimizer: Any,
        mode: Mode = None,
        **options: Any,
    ) -> tuple[PyTree, PyTree, State, Info]:
        """Learn from one sequence: `(params, opt_state, state, Info)`.

        Args:
            params, state, xs, targets: as for `etrace_grad`.
            opt_state: the optimiser's state, `optimizer.init(learner.trained(params))`, or of all
                params.
            optimizer: an optax `GradientTransformation` (anything with `update(gradients,
                opt_state, params)`).
            mode: 'A' updates once, with the gradient of the sequence; 'O' at every step, with the
                gradient of that step's loss; a whole number k after every k steps. Default: the
                algorithm's own (OTTT), else 'A'.
            **options: of `etrace_grad`. But for mode 'A' each update moves the state on, and
                `return_state` is not looked at.
        """
        self.border.check(state)
        start = params, opt_state, state
        return fit_sequence(self, start, (xs, *targets), optimizer, mode, options)

    def etrace_evolve(
        self,
        params: PyTree,
        state: State,
        xs: Timed,
        *,
        traces: bool = True,
        window: int | None = None,
        return_outputs: bool = True,
    ) -> tuple[State, Timed | None]:
        """Forward only over a sequence: `(state, outputs stacked over time)`.

        The traces move on too, so that a gradient taken afterwards reaches back into this sequence;
        with `traces=False` they stay as they are, which is faster: for an evaluation. `window`
        steps are done at once, as in `etrace_grad`. Without `return_outputs` these are not held:
        None is returned in their place.
        """
        steps, held = sequence_length(xs), flag("return_outputs", return_outputs)
        moves = flag("traces", traces)
        start, leaves = self._start(params, state, formed=moves), self._inputs(xs, (steps,))
        if moves:
            size = self._budget.window(steps, window)
            moved = self._programs.advance(*start, leaves, size=size, held=held)
            return self._moved(state, steps, leaves, *moved)
        carry, outs = self._programs.evolve(*start[:2], leaves, held=held)
        return self._moved(state, steps, leaves, carry, state.traces, outs)

    def check_gradients(
        self, params: PyTree, state: State, xs: Timed, *targets: Timed, **options: Any
    ) -> GradientReport:
        """Compare the gradient of a sequence with BPTT, parameter by parameter:
        `braintrace.checks.check_gradients`.
        """
        return check_gradients(self, params, state, xs, *targets, **options)
