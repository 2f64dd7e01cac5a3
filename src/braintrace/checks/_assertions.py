"""Assertions for users' own tests."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from ..cell import Timed
from ..core._domains import array, positive
from ..core._errors import UsageError
from ..core.analysis import Exactness
from ..gradients import (
    GradientReport,
    GradientRow,
    check_gradients,
    checked_tolerance,
    compare_gradients,
    inner_dtypes,
)


def assert_gradients_exact(
    learner: Any,
    params: PyTree,
    state: PyTree,
    xs: Timed,
    *targets: Timed,
    paths: Sequence[str] | None = None,
    **options: Any,
) -> GradientReport:
    """Assert that parameters are certified exact, and that their gradients equal BPTT.

    Args:
        learner, params, state, xs, targets: as for `check_gradients`.
        paths: the parameters that must be exact; by default all.
        **options: further arguments of `check_gradients` (`loss_fn`, `mask`, `reset`, `window`,
            `tolerance`, ...).

    Returns:
        The report.

    Raises:
        AssertionError: with the report, when a parameter is not certified exact, its gradient is
            not that of BPTT, or its gradient is zero (which any rule would get right).

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    >>> loss = lambda out: (out**2).sum(-1)
    >>> report = braintrace.checks.assert_gradients_exact(
    ...     learner, params, learner.init(params, h), xs, loss_fn=loss
    ... )
    """
    _check_paths(learner, paths)
    report = check_gradients(learner, params, state, xs, *targets, **options)

    def complaint(row: GradientRow) -> str:
        if row.certificate != Exactness.EXACT:
            return f"is {row.certificate}, not exact"
        if report.vanishes(row):
            return "has a gradient of zero, which says nothing"
        off = f"is certified exact and differs from BPTT by {row.relative_error:.1e}"
        return "" if report.equal(row) else off

    return _asserted(report, paths, complaint)


def assert_gradients_match(
    learner: Any,
    params: PyTree,
    state: PyTree,
    xs: Timed,
    *targets: Timed,
    reference: PyTree = None,
    rtol: float | None = None,
    paths: Sequence[str] | None = None,
    **options: Any,
) -> GradientReport:
    """Assert that a learner's gradients equal a reference, whatever their certificates say.

    Args:
        learner, params, state, xs, targets: as for `check_gradients`.
        reference: a tree of gradients, `d_rtrl_oracle(...)[0]` say; by default BPTT.
        rtol: relative error that is allowed; by default that of `check_gradients`.
        paths: the parameters that must match; by default all.
        **options: further arguments of `check_gradients`.

    Returns:
        The report.

    Raises:
        AssertionError: with the report, when a gradient differs by more than `rtol`.

    >>> import jax.numpy as jnp
    >>> import braintrace
    >>> def cell(p, h, x):
    ...     h = 0.5 * h + x @ p["w"]
    ...     return h, h
    >>> params, h, xs = {"w": jnp.ones((2, 3))}, jnp.zeros((1, 3)), jnp.ones((4, 1, 2))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=params, carry=h)
    >>> loss = lambda out: (out**2).sum(-1)
    >>> report = braintrace.checks.assert_gradients_match(
    ...     learner, params, learner.init(params, h), xs, loss_fn=loss
    ... )
    >>> report.worst < 1e-5
    True
    """
    _check_paths(learner, paths)
    checked_tolerance("rtol", rtol)
    if reference is None:
        report = check_gradients(learner, params, state, xs, *targets, tolerance=rtol, **options)
    else:
        online = learner.etrace_grad(params, state, xs, *targets, return_state=False, **options)[0]
        certificates = {r.path: r.exactness for r in learner.graph.parameters}
        title = "online gradients against the reference"
        given = {
            "tolerance": rtol,
            "title": title,
            "dtypes": inner_dtypes(learner.graph, learner.rule),
        }
        report = compare_gradients(online, reference, certificates, **given)
    off = lambda row: "" if report.equal(row) else f"differs by {row.relative_error:.1e}"
    return _asserted(report, paths, off)


def assert_not_dead(gradients: PyTree, *, floor: float = 0.0) -> None:
    """Assert that every gradient of a tree is finite and has a norm above `floor`.

    A test of a gradient that is zero passes for every rule: a network that never spikes has such
    gradients.

    Raises:
        AssertionError: naming the paths of gradients that are zero or not finite.

    >>> from braintrace import checks
    >>> checks.assert_not_dead({"w": 1.0})
    >>> checks.assert_not_dead({"w": 0.0})
    Traceback (most recent call last):
    AssertionError: ...
    """
    wrong, floor = [], positive("floor", floor, zero=True)
    for key, value in jax.tree_util.tree_leaves_with_path(gradients):
        leaf = array(f"gradient {jax.tree_util.keystr(key)}", value)
        norm = float(np.linalg.norm(np.asarray(leaf).astype(np.complex128).reshape(-1)))
        if not floor < norm < np.inf:
            wrong.append(f"{jax.tree_util.keystr(key) or 'value'} has norm {norm:.3g}")
    if wrong:
        raise AssertionError("\n  ".join(["Dead gradients:", *wrong]))


def _check_paths(learner: Any, paths: Sequence[str] | None) -> None:
    known = [row.path for row in learner.graph.parameters]
    if paths is not None and not (isinstance(paths, list | tuple) and {*paths} <= {*known}):
        expected = f"a list of some of {known}"
        raise UsageError("Invalid paths.", got=repr(paths), expected=expected)


def _asserted(
    report: GradientReport, paths: Sequence[str] | None, complaint: Callable[[GradientRow], str]
) -> GradientReport:
    """The report, when there is no complaint about a row at `paths`."""
    chosen = report.rows if paths is None else [report[p] for p in paths]
    if wrong := [f"{row.path} {what}" for row in chosen if (what := complaint(row))]:
        told = "\n  ".join(["Gradients are not as asserted:", *wrong])
        raise AssertionError(f"{told}\n\n{report}")
    return report
