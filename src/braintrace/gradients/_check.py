"""`check_gradients`: a learner's gradients against BPTT through the user's own model."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import PyTree, Real

from ..cell import Mask, Reset, Timed, Values, merged, sequence_length
from ..cell._arguments import Modulator, checked_window
from ..core._compat import is_differentiable
from ..core._domains import flag
from ..core._errors import UsageError
from ..core.analysis import CellGraph, Exactness, ParameterRow, reach
from ..core.engine import Rule
from ._bptt import bptt_gradient, gradient_of
from ._report import GradientReport, checked_tolerance, compare_gradients


def check_gradients(
    learner: Any,
    params: PyTree,
    state: PyTree,
    xs: Timed,
    *targets: Timed,
    loss_fn: Callable[..., PyTree] | None = None,
    step_fn: Callable[..., PyTree] | None = None,
    mask: Mask | None = None,
    reset: Reset | None = None,
    reduction: str = "mean",
    window: int | None = None,
    windows: Sequence[int | None] = (),
    multi_step: bool = False,
    tolerance: float | None = None,
    y_target: Real[ArrayLike, "... O"] | None = None,
    modulator: Modulator | None = None,
) -> GradientReport:
    """Compare a learner's gradient of a sequence with BPTT through its cell, parameter by
    parameter.

    The comparison starts at `state.carry`: BPTT knows nothing of what came before, so give a fresh
    state (`learner.init`) to judge the rule; the traces of a used state stand for paths that the
    reference does not have.

    Args:
        learner: a `FunctionLearner`.
        params, state, xs, targets, loss_fn, step_fn, mask, reset, reduction, y_target, modulator:
            as for `etrace_grad`.
        window: steps done at once, as for `etrace_grad`, and by default what it would choose: what
            is checked is what training runs. It does not change the gradient, except with
            `multi_step`.
        windows: windows that must all give the same gradient; the first one is compared with BPTT.
            `windows=(None, 1)` checks the default window and single steps. In place of `window`.
        multi_step: judge the multi-step VJP: BPTT inside each window plus the traces at its entry.
            Over one window that is the whole sequence (window=None) it equals BPTT for every
            parameter and says nothing about the rule.
        tolerance: relative error up to which a gradient counts as equal; by default 1e-8 in
            float64, 1e-3 in float32, 2e-2 in float16 and 5e-2 in bfloat16, whichever is the largest
            of the dtypes that parameters, state, traces, losses and all that depends on them have:
            the report names it. Rounding is allowed for beside it: see `GradientReport`.

    Returns:
        A `GradientReport`: for each parameter its certificate, cosine, relative error and norms;
        `report.ok` says whether every parameter that is certified exact equals BPTT.

    Raises:
        UsageError: as `etrace_grad`, for `window` beside `windows`, and for `multi_step` with
            `reset`, `step_fn` or `windows`.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    >>> state, loss = learner.init(params, h), lambda out: (out**2).sum(-1)
    >>> braintrace.checks.check_gradients(learner, params, state, xs, loss_fn=loss).ok
    True
    """
    options: dict[str, Any] = {"mask": mask, "reduction": reduction}
    chosen = window_choice(window, windows, tolerance)
    if flag("multi_step", multi_step):
        for name, refused, do in (
            ("reset", reset is not None, "cut the sequence at the resets"),
            ("step_fn", loss_fn is None, "pass loss_fn(out, *targets)"),
            ("windows", bool(windows), "pass window=: each window has a gradient of its own"),
        ):
            if refused:
                raise UsageError(f"multi_step does not go with {name}.", do=do)
        assert loss_fn is not None  # else it was refused
        run, trained = _in_windows(learner, params, state, xs, window), learner.trained(params)
        gradients = [gradient_of(run, trained, xs, targets, loss_fn, mask, reduction)[0]]
    else:  # in front of the reference: the better errors
        said: dict[str, Any] = {"loss_fn": loss_fn, "step_fn": step_fn, "reset": reset}
        said |= {"y_target": y_target, "modulator": modulator}
        online = partial(learner.etrace_grad, params, state, xs, *targets, **said, **options)
        gradients = [online(window=w)[0] for w in chosen]
    function, sequences = learner.function, (xs, *targets)
    if step_fn is not None:
        function, loss_fn, sequences = learner.stepped(step_fn), lambda loss: loss, (sequences,)
    assert loss_fn is not None  # etrace_grad has seen to that
    cell = lambda trained, carry, x: function(merged(trained, params), carry, x)
    axes = None if reset is None else learner.reset_axes
    if jax.tree.leaves(axes):  # else a reset changes nothing
        options |= {"reset": reset, "initial": learner.initial, "batch_axes": axes}
    given = learner.trained(params), state.carry, *sequences
    reference, losses = bptt_gradient(cell, *given, loss_fn=loss_fn, **options)
    pairs = zip(learner.graph.parameters, learner.graph.params, strict=False)
    rows = [r for r, v in pairs if v.differentiable and r.exactness is not Exactness.FROZEN]
    named = lambda tree: Values(tuple(r.path for r in rows), jax.tree.leaves(tree))
    return judge(
        {w: named(g) for w, g in zip(chosen, gradients, strict=True)},
        named(reference),
        {r.path: r for r in rows},
        tolerance,
        [*inner_dtypes(learner.graph, learner.rule), losses.dtype],
    )


def window_choice(
    window: int | None, windows: Sequence[int | None], tolerance: float | None
) -> tuple[int | None, ...]:
    """The windows to check, the first of which is compared with the reference."""
    checked_tolerance("tolerance", tolerance)
    if not isinstance(windows, tuple | list):
        expected = "a tuple of windows, such as (None, 1)"
        raise UsageError("Invalid windows.", got=repr(windows), expected=expected)
    if windows and window is not None:
        raise UsageError("window does not go with windows.", got=(window, windows), do="pass one")
    return tuple(map(checked_window, windows or (window,)))


def inner_dtypes(graph: CellGraph, rule: Rule) -> set[np.dtype]:
    """The dtypes of everything that derivatives of parameters and state pass through, and of the
    traces.
    """
    starts = (*graph.params, *(graph.carry[k] for k in graph.hidden))
    traces = jax.tree.leaves(jax.eval_shape(lambda: rule.init(graph)))
    inner = {v.dtype for v in (*reach([*graph.prelude, *graph.step], starts), *traces)}
    return {dtype for dtype in inner if is_differentiable(dtype)}


def judge(
    gradients: Mapping[int | None, Any],
    reference: PyTree,
    rows: Mapping[str, ParameterRow],
    tolerance: float | None,
    dtypes: Iterable[DTypeLike],
) -> GradientReport:
    """The gradient of the first window against the reference, and those of the others against
    it.
    """
    certificates = {path: row.exactness for path, row in rows.items()}
    dropped = {path: len(row.dropped) for path, row in rows.items()}
    given = {"tolerance": tolerance, "dtypes": tuple(dtypes)}
    (window, first), *others = gradients.items()
    report = compare_gradients(first, reference, certificates, dropped=dropped, **given)
    apart = []
    for other, gradient in others:
        between = compare_gradients(gradient, first, certificates, **given)
        apart += [
            f"window {other or 'default'} against window {window or 'default'}: "
            f"{row.path} differs by {row.relative_error:.1e}"
            for row in between.rows
            if not between.equal(row)
        ]
    warnings = [f"{path}: {warning}" for path, row in rows.items() for warning in row.warnings]
    return dataclasses.replace(report, disagreements=tuple(apart), warnings=tuple(warnings))


def _in_windows(
    learner: Any, params: PyTree, state: PyTree, xs: Timed, window: int | None
) -> Callable[..., tuple[PyTree, PyTree]]:
    """The outputs, with the derivatives of the multi-step VJP in windows."""
    steps = sequence_length(xs)

    def run(trained: PyTree, weights: jax.Array) -> tuple[PyTree, PyTree]:
        now, outs = state, []
        for start in range(0, steps, window or steps):
            part = jax.tree.map(lambda v, at=start: v[at : at + (window or steps)], xs)
            now, out = learner.update_window(merged(trained, params), now, part, full=True)
            now = jax.lax.stop_gradient(now)
            outs.append(out)
        return jax.tree.map(lambda *parts: jnp.concatenate(parts), *outs), 0.0

    return run
