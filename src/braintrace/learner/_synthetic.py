"""Where an estimator of the later loss learns: by bootstrapped targets, window by window."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxtyping import PyTree

from ..cell import Mask, Reset, check_driver, check_loss, check_reset, sequence_length
from ..cell._arguments import checked_marks, checked_mask
from ..cell._user_step import OF_OUTPUT, check_takes
from ..core._domains import described, flag, positive, whole
from ..core._errors import UsageError
from ..core.signals import estimator_of
from ..core.traces import with_learned
from ._bootstrap import Course, Lesson
from ._functional import FunctionLearner
from ._kept import UserFunction


def train_synthetic_gradient(
    learner: Any,
    *given: Any,
    loss_fn: Callable[..., PyTree],
    chunk_size: int = 1,
    mask: Mask | None = None,
    reset: Reset | bool | None = None,
    ends: bool = False,
    lr: float = 0.01,
    optimizer: Any = None,
    epochs: int = 1,
    refresh: int = 1,
    batch_size: int | None = None,
) -> Any:
    r"""Let the estimator M of a `dni` learner learn from a sequence, by bootstrapped targets.

    .. math::

        M(h^a) \leftarrow \frac{\partial}{\partial h^a} \left(\sum_{t=a+1}^{b} L^t +
        \langle M'(h^b), h^b \rangle\right)

    at the entry a of each window of `chunk_size` steps, b its exit and M' a copy of M, as
    constants. The error of a window is half the squared distance, a mean over samples. Parameters,
    carry and traces do not move. M learns the estimate of a sum over steps; where `etrace_grad`
    takes a mean, it divides the estimate as it does the losses.

    Memory and time: those of BPTT over one window, with respect to the state alone.

    Args:
        learner: a learner of 'dni', of any front end.
        *given: of functions and Equinox modules `params, state, xs, *targets`; of NNX and
            brainstate modules `xs, *targets`: as for `etrace_grad`.
        loss_fn: as for `etrace_grad`. M is that of this loss alone.
        chunk_size: steps from target to target, as many as the learner's windows have: 1, but for
            the multi-step VJP.
        mask: as for `etrace_grad`.
        reset: marks as for `etrace_grad`; or True to begin at the compiled carry.
        ends: whether nothing follows the sequence: M learns zero at its last state.
        lr: the learning rate of gradient descent, a step for each window.
        optimizer: an optax `GradientTransformation` in its place; its state is made anew at each
            call.
        epochs: how often the sequence is gone through, each time from the same carry.
        refresh: after how many windows M' is copied anew.
        batch_size: the compiled one, or None.

    Returns:
        `(state, errors)`, the state with the new M; `errors` alone where the learner holds its
        state. (epochs,): the mean squared error of an element of the estimates.

    Raises:
        UsageError: for a learner without an estimator, and for sequences, a loss, a mask, a reset
            or options that do not fit.

    References:
        Jaderberg et al., ICML 2017, arXiv 1608.05343, section 2.2.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, xs = jnp.ones((2, 3)), jnp.zeros((1, 3)), jnp.ones((40, 1, 2))
    >>> learner = braintrace.compile(cell, "dni", xs[0], params=w, carry=h)
    >>> given = {"loss_fn": lambda out: out.sum(-1), "lr": 0.02, "epochs": 100}
    >>> state = learner.init(w, h)
    >>> state, errors = braintrace.train_synthetic_gradient(learner, w, state, xs, **given)
    >>> estimator = braintrace.SyntheticGradient()
    >>> found = estimator(estimator.weights(state), 4 * jnp.ones((1, 3)))
    >>> bool(abs(found - 1).max() < 0.05)  # at a late state 1/2 + 1/4 + ... follows
    True
    """
    holds = not isinstance(learner, FunctionLearner)
    core: Any = getattr(learner, "_core", None) if holds else learner
    if core is None:
        raise UsageError("This is no learner.", got=described(learner), expected="one of 'dni'")
    params, state, xs, *targets = (*learner._now(), *given) if holds else given
    estimator = estimator_of(core.rule.edits)
    if estimator is None:
        raise UsageError(
            "The learner has no estimator of the later loss.",
            got=f"one of {core.rule.name}",
            expected="one of 'dni'",
            do="compile the model with 'dni'",
        )
    xs = learner._inputs(xs) if holds else xs
    steps, samples = sequence_length(xs), core.graph.batch_size
    size = whole("chunk_size", chunk_size)
    check_driver(steps, targets, "sum", None)
    check_loss(loss_fn, None, 1 + len(targets), core._called)
    check_takes("loss_fn", loss_fn, 1 + len(targets), OF_OUTPUT)
    if steps % size:
        got, expected = f"{steps} steps in chunks of {size}", "a whole number of chunks"
        raise UsageError("The chunks do not fill the sequence.", got=got, expected=expected)
    if batch_size not in (None, samples):
        raise UsageError("Invalid batch_size.", got=batch_size, expected=f"{samples}, as compiled")
    marks = None if reset is None or isinstance(reset, bool) else checked_marks(reset)
    chosen = flag("ends", ends), whole("epochs", epochs), whole("refresh", refresh)
    course = Course(size, *chosen, positive("lr", lr), optimizer)
    if optimizer is not None and not callable(getattr(optimizer, "update", None)):
        got, expected = described(optimizer), "an optax optimiser, or None"
        raise UsageError("Invalid optimizer.", got=got, expected=expected)
    flat, carry, traces = core._start(params, state)
    lesson = Lesson(
        core._inputs(xs, (steps,)),
        targets,
        None if mask is None else checked_mask(mask, "sum"),
        None if marks is None else check_reset(marks, steps, samples),
        [] if marks is None else core._initial_values(),
    )
    begins = core._initial_values() if reset is True else carry
    resets = () if marks is None else core._resettable
    program = core._programs.estimates.of(UserFunction(loss_fn), resets, estimator, course)
    weights, errors = program(flat, begins, estimator.weights(traces), lesson)
    new = dataclasses.replace(state, traces=with_learned(traces, weights))
    if not holds:
        return new, errors
    learner._move(new)
    return errors
