"""`check_gradients`: a learner's gradients against BPTT through the user's own model."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from ..cell import Values, merged, sequence_length, weigh, weights_of
from ..core._errors import UsageError, problem
from ..core.analysis import CellGraph, Exactness, ParameterRow
from ._gradient_report import GradientReport, compare_gradients
from ._reference import bptt_gradient


class Learner(Protocol):
    """What `check_gradients` asks of a learner of a function."""

    @property
    def graph(self) -> CellGraph: ...

    @property
    def function(self) -> Callable[..., Any]: ...

    @property
    def initial(self) -> Any: ...

    def trained(self, params: Any) -> Any: ...

    def etrace_grad(
        self, params: Any, state: Any, xs: Any, *targets: Any, **options: Any
    ) -> Any: ...

    def stepped(self, step_fn: Callable[..., Any]) -> Callable[..., Any]: ...

    def update_window(self, params: Any, state: Any, xs: Any, *, full: bool) -> Any: ...


def check_gradients(
    learner: Learner,
    params: Any,
    state: Any,
    xs: Any,
    *targets: Any,
    loss_fn: Callable[..., Any] | None = None,
    step_fn: Callable[..., Any] | None = None,
    mask: Any = None,
    reset: Any = None,
    reduction: str = "mean",
    window: int | None = 1,
    multi_step: bool = False,
    tolerance: float | None = None,
) -> GradientReport:
    """Compare a learner's gradient of a sequence with BPTT through its cell, parameter by
    parameter.

    The comparison starts at `state.carry`: BPTT knows nothing of what came before, so give a fresh
    state (`learner.init`) to judge the rule; the traces of a used state stand for paths that the
    reference does not have.

    Args:
        learner: a `FunctionLearner`.
        params, state, xs, targets, loss_fn, step_fn, mask, reset, reduction: as for `etrace_grad`.
        window: steps done at once. It does not change the numbers, except with `multi_step`.
        multi_step: judge the multi-step VJP: BPTT inside each window plus the traces at its entry.
            Over one window that is the whole sequence it equals BPTT for every parameter and says
            nothing about the rule.
        tolerance: relative error up to which a gradient counts as equal; by default 1e-8 in
            float64, 1e-3 in float32.

    Returns:
        A `GradientReport`: for each parameter its certificate, cosine, relative error and norms;
        `report.ok` says whether every parameter that is certified exact equals BPTT.

    Raises:
        UsageError: as `etrace_grad`, and for `multi_step` with `reset` or `step_fn`.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    >>> loss = lambda out: (out**2).sum(-1)
    >>> braintrace.checks.check_gradients(learner, params, learner.init(params, h), xs, loss_fn=loss).ok
    True
    """
    options = {"mask": mask, "reduction": reduction}
    if multi_step:
        if reset is not None:
            raise UsageError(
                problem("multi_step does not go with reset.", do="cut the sequence at the resets")
            )
        if loss_fn is None:
            raise UsageError(
                problem("multi_step does not go with step_fn.", do="pass loss_fn(out, *targets)")
            )
        online = _multi_step(learner, params, state, xs, targets, window, loss_fn, **options)
    else:
        given = {
            "loss_fn": loss_fn,
            "step_fn": step_fn,
            "reset": reset,
            "window": window,
            "return_state": False,
        }
        online = learner.etrace_grad(params, state, xs, *targets, **given, **options)[0]
    function = learner.function
    if step_fn is not None:
        function, loss_fn, xs, targets = (
            learner.stepped(step_fn),
            lambda loss: loss,
            (xs, *targets),
            (),
        )
    assert loss_fn is not None  # etrace_grad has seen to that
    cell = lambda trained, carry, x: function(merged(trained, params), carry, x)
    reference, _ = bptt_gradient(
        cell,
        learner.trained(params),
        state.carry,
        xs,
        *targets,
        loss_fn=loss_fn,
        reset=reset,
        initial=learner.initial,
        **options,
    )
    rows = rows_with_gradient(learner.graph)
    a, b = (
        Values(tuple(r.path for r in rows), jax.tree.leaves(tree)) for tree in (online, reference)
    )
    certificates = {r.path: r.exactness for r in rows}
    dropped = {r.path: len(r.dropped) for r in rows}
    return compare_gradients(a, b, certificates, tolerance=tolerance, dropped=dropped)


def rows_with_gradient(graph: CellGraph) -> list[ParameterRow]:
    """The certificates of the parameters that have a gradient, in order."""
    rows = zip(graph.parameters, graph.params, strict=False)
    return [row for row, v in rows if v.differentiable and row.exactness is not Exactness.FROZEN]


def _multi_step(
    learner: Learner,
    params: Any,
    state: Any,
    xs: Any,
    targets: Any,
    window: int | None,
    loss_fn: Any,
    mask: Any,
    reduction: str,
) -> Any:
    """The sum of the gradients of full windows."""
    steps = sequence_length(xs)
    size = steps if window is None else window

    def losses_of(trained: Any, state: Any, part: slice) -> tuple[Any, Any]:
        now, outs = learner.update_window(
            merged(trained, params), state, jax.tree.map(lambda v: v[part], xs), full=True
        )
        cut = jax.tree.map(lambda v: v[part], targets)
        return now, jax.vmap(lambda out, target: jnp.asarray(loss_fn(out, *target)))(outs, cut)

    trained = learner.trained(params)
    shape = jax.eval_shape(lambda p, s: losses_of(p, s, slice(0, 1))[1], trained, state)
    weights = weights_of(mask, jax.ShapeDtypeStruct(shape.shape[1:], shape.dtype), steps, reduction)
    total = None
    for start in range(0, steps, size):
        part = slice(start, start + size)

        def objective(trained: Any, state: Any = state, part: slice = part) -> tuple[Any, Any]:
            now, losses = losses_of(trained, state, part)
            return weigh(losses, weights[part]), now

        gradients, state = jax.grad(objective, has_aux=True)(trained)
        total = gradients if total is None else jax.tree.map(jnp.add, total, gradients)
    return total
