"""Learning from a sequence with an optimiser: one update for the sequence, or one for each step."""

from typing import Any

import jax
import jax.numpy as jnp

from .._errors import UsageError, problem
from ._arguments import sequence_length


def fit_sequence(
    learner: Any,
    params: Any,
    opt_state: Any,
    state: Any,
    xs: Any,
    targets: tuple[Any, ...],
    optimizer: Any,
    mode: str,
    options: dict[str, Any],
) -> tuple[Any, Any, Any, Any]:
    """`(params, opt_state, state, info)` after the sequence; `learner.etrace_grad(params, state, xs, *targets, **options)`."""
    if mode not in ("A", "O"):
        raise UsageError(problem("Unknown mode.", got=repr(mode), expected="'A' or 'O'"))
    if mode == "A":
        gradients, state, info = learner.etrace_grad(params, state, xs, *targets, **options)
        params, opt_state = _apply(optimizer, gradients, opt_state, params)
        return params, opt_state, state, info
    return _each_step(learner, params, opt_state, state, xs, targets, optimizer, options)


def _each_step(
    learner: Any, params: Any, opt_state: Any, state: Any, xs: Any, targets: Any, optimizer: Any, options: dict[str, Any]
) -> tuple[Any, Any, Any, Any]:
    timed = {k: options.pop(k) for k in ("mask", "reset", "y_target") if options.get(k) is not None}
    fixed = {k: v for k, v in options.items() if k not in ("window", "return_state")}
    if learner.rule.target_timing == "sequence-end" and "y_target" in timed:
        raise UsageError(
            problem("A target that comes at the end of the sequence cannot be used at every step.", got="mode='O'",
                    expected="mode='A', or target_timing='per-step'")
        )  # fmt: skip

    def one(carried: Any, at: Any) -> tuple[Any, Any]:
        params, opt_state, state = carried
        x, target, given = jax.tree.map(lambda v: v[None], at)
        gradients, state, info = learner.etrace_grad(params, state, x, *target, window=1, **given, **fixed)
        params, opt_state = _apply(optimizer, gradients, opt_state, params)
        return (params, opt_state, state), jax.tree.map(lambda v: v[0], info)

    if state.traces is None:
        state = learner.init(params, state.carry)
    sequence_length(xs)
    carried, info = jax.lax.scan(one, (params, opt_state, state), (xs, targets, timed))
    return *carried, info


def _apply(optimizer: Any, gradients: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
    gradients = jax.tree.map(lambda g, p: jnp.zeros_like(p) if g is None else g, gradients, params, is_leaf=lambda v: v is None)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    return jax.tree.map(lambda p, u: (p + u).astype(jnp.asarray(p).dtype), params, updates), opt_state
