"""Learning from a sequence with an optimiser: one update for the sequence, or one for each step."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Timed, check_finite, merged, sequence_length
from ..cell._arguments import check_driver
from ..core._domains import choice
from ..core._errors import UsageError, first_line
from ..core.engine import Rule
from ._finite import check_moved
from ._objective import Options
from ._state import Info, State

#: (params, state of the optimiser, state of the learner)
Fitted = tuple[PyTree, PyTree, State]


def fit_sequence(
    learner: Any,
    start: Fitted,
    sequences: tuple[Timed, ...],
    optimizer: Any,
    mode: str | None,
    options: dict[str, Any],
) -> tuple[PyTree, PyTree, State, Info]:
    """`(params, opt_state, state, info)` after the sequence; `options` are those of
    `etrace_grad`.
    """
    params, given_state, state = start
    before = learner.trained(params)
    opt_state, back = _of_trained(optimizer, before, params, given_state)

    def update(carried: Fitted, sequences: PyTree, **given: Any) -> tuple[Fitted, Info]:
        trained, opt_state, state = carried
        now = merged(trained, params)
        gradients, state, info = learner.etrace_grad(now, state, *sequences, **given)
        with taking_gradients(
            "an optax optimiser, and its state optimizer.init(learner.trained(params))"
        ):
            updates, opt_state = optimizer.update(gradients, opt_state, trained)
        moved = lambda p, u: (p + u).astype(jnp.asarray(p).dtype)
        return (jax.tree.map(moved, trained, updates), opt_state, state), info

    def step(carried: Fitted, at: PyTree) -> tuple[Fitted, Info]:
        slices, given = jax.tree.map(lambda v: v[None], at)
        return update(carried, slices, window=1, **given, **fixed)

    if fit_mode(mode, learner.rule, options) == "A":
        (trained, opt_state, state), info = update((before, opt_state, state), sequences, **options)
    else:
        timed, fixed = step_options(sequences, options)
        if state.traces is None:
            state = dataclasses.replace(state, traces=learner.rule.init(learner.graph))
        began = before, opt_state, state
        # jitted, so that its program goes with it
        scan = jax.jit(lambda began, at: jax.lax.scan(step, began, at))
        (trained, opt_state, state), info = scan(began, (sequences, timed))
        info = jax.tree.map(lambda v: v[:, 0], info)
        check_finite(info.losses, options.get("mask"))
        check_moved(learner, (before, began[2]), (trained, state))
    return merged(trained, params), back(opt_state), state, info


def _of_trained(
    optimizer: Any, trained: PyTree, params: PyTree, opt_state: PyTree
) -> tuple[PyTree, Callable[[PyTree], PyTree]]:
    """What an optimiser's state holds for the trained leaves, and a function that puts it back: a
    state that was made of all params, `optimizer.init(params)`, holds what nothing updates, too.
    """
    if jax.tree.structure(trained) == jax.tree.structure(params):
        return opt_state, lambda new: new
    flat, structure = jax.tree_util.tree_flatten_with_path(opt_state)
    wanted = jax.eval_shape(optimizer.init, trained)
    paths = [path for path, _ in jax.tree_util.tree_flatten_with_path(wanted)[0]]
    held = dict(flat)
    if structure == jax.tree.structure(wanted) or not held.keys() >= set(paths):
        return opt_state, lambda new: new

    def back(new: PyTree) -> PyTree:
        moved = dict(zip(paths, jax.tree.leaves(new), strict=True))
        return structure.unflatten({**held, **moved}.values())

    return jax.tree.unflatten(jax.tree.structure(wanted), [held[p] for p in paths]), back


@contextlib.contextmanager
def taking_gradients(expected: str) -> Iterator[None]:
    """Inside, an optimiser takes gradients; what it raises is said in words of ours."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise UsageError(
            "The optimiser does not take the gradients.",
            got=first_line(error),
            expected=expected,
            do="make the optimiser's state of the parameters that are trained, as compiled",
        ) from error


def fit_mode(mode: str | None, rule: Rule, options: dict[str, Any]) -> str:
    """'A' or 'O': as asked for, else as the algorithm says, else 'A'."""
    chosen = choice("mode", (rule.schedule or "A") if mode is None else mode, ("A", "O"))
    late = rule.target_timing == "sequence-end" and options.get("y_target") is not None
    if chosen == "O" and late:
        raise UsageError(
            "A target that comes at the end of the sequence cannot be used at every step.",
            got="mode='O'",
            expected="mode='A', or target_timing='per-step'",
        )
    if chosen == "O" and options.get("fidelity"):
        raise UsageError(
            "The fidelity of a gradient is that of a sequence.",
            got="fidelity=True, with an update at every step",
            expected="mode='A'",
            do="ask etrace_grad for it over a sequence, now and then",
        )
    return chosen


def step_options(
    sequences: tuple[Timed, ...], options: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of `etrace_grad` for single steps: those with a time axis, and those that are the
    same for each step. Checked here, with the lengths of the sequences: the steps see no values.
    """
    known = {f.name: options[f.name] for f in dataclasses.fields(Options) if f.name in options}
    checked, steps = Options(**known), sequence_length(sequences[0])
    check_driver(steps, sequences[1:], checked.reduction, checked.window)
    timed = {k: getattr(checked, k) for k in ("mask", "reset", "y_target", "modulator")}
    timed = {k: v for k, v in timed.items() if v is not None}
    for name, given in timed.items():
        for value in jax.tree.leaves(given):
            if value.shape[:1] != (steps,):
                raise UsageError(
                    f"The {name} has another length than the sequences.",
                    got=f"shape {value.shape}",
                    expected=f"time on axis 0, {steps} steps",
                )
    # every step is a window, and moves the state on
    sequence_only = ("window", "chunk_size", "return_state")
    return timed, {k: v for k, v in options.items() if k not in timed and k not in sequence_only}
