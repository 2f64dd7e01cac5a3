"""Learning from a sequence with an optimiser: one update for the sequence, or one for each step or
chunk of steps.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..cell import Timed, check_finite, merged, sequence_length
from ..cell._arguments import check_driver
from ..core._domains import choice, whole
from ..core._errors import UsageError, first_line
from ..core.engine import Rule
from ._finite import check_moved
from ._objective import Options
from ._state import Info, State

#: (params, state of the optimiser, state of the learner)
Fitted = tuple[PyTree, PyTree, State]
#: When an optimiser updates: 'A' after the sequence, 'O' after each step, or after so many steps;
#: None for the algorithm's own choice.
Mode = str | int | None


def fit_sequence(
    learner: Any,
    start: Fitted,
    sequences: tuple[Timed, ...],
    optimizer: Any,
    mode: Mode,
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

    chunks = chunks_of(mode, learner.rule, sequences, options)
    if chunks is None:
        (trained, opt_state, state), info = update((before, opt_state, state), sequences, **options)
    else:
        if state.traces is None:
            state = dataclasses.replace(state, traces=learner.rule.init(learner.graph))
        began = before, opt_state, state
        # jitted, so that its program goes with it
        one, fixed = (lambda now, at: update(now, at[0], **at[1], **fixed)), chunks.fixed
        scan = jax.jit(lambda began, at: jax.lax.scan(one, began, at))
        (trained, opt_state, state), info = scan(began, (chunks.sequences, chunks.timed))
        info = one_after_another(info)
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


def _steps_of(mode: Mode, rule: Rule, options: dict[str, Any]) -> int | None:
    """After how many steps each there is an update, None for the whole sequence: as asked for, else
    as the algorithm says, else 'A'.
    """
    chosen = (rule.schedule or "A") if mode is None else mode
    if isinstance(chosen, str | bool):
        size = {"A": None, "O": 1}[choice("mode", chosen, ("A", "O"))]
    else:
        size = whole("mode", chosen, "'A', 'O', or a whole number of steps")
    late = rule.target_timing == "sequence-end" and options.get("y_target") is not None
    if size is not None and late:
        raise UsageError(
            "A target that comes at the end of the sequence cannot be used at every step.",
            got=f"mode={chosen!r}",
            expected="mode='A', or target_timing='per-step'",
        )
    if size is not None and options.get("fidelity"):
        raise UsageError(
            "The fidelity of a gradient is that of a sequence.",
            got="fidelity=True, with an update at every step",
            expected="mode='A'",
            do="ask etrace_grad for it over a sequence, now and then",
        )
    return size


def one_after_another(chunks: PyTree) -> PyTree:
    """The steps of chunks, on one axis."""
    return jax.tree.map(lambda v: v.reshape(-1, *v.shape[2:]), chunks)


class Chunks(NamedTuple):
    """What each update learns from, the number of the chunk on axis 0 and its steps on axis 1: the
    sequences, and the options of `etrace_grad` that have a time axis. `fixed` are the others.
    """

    sequences: tuple[Timed, ...]
    timed: dict[str, Any]
    fixed: dict[str, Any]


def chunks_of(
    mode: Mode,
    rule: Rule,
    sequences: tuple[Timed, ...],
    options: dict[str, Any],
    together: int | None = None,
) -> Chunks | None:
    """The chunks of a sequence, each of which updates; None for one update. `together`: steps of a
    window of the multi-step form.

    The options are checked here, with the lengths of the sequences: the chunks see no values.
    """
    size = _steps_of(mode, rule, options)
    if size is None:
        return None
    if size == 1 and together:
        size = together
    known = {f.name: options[f.name] for f in dataclasses.fields(Options) if f.name in options}
    checked, steps = Options(**known), sequence_length(sequences[0])
    check_driver(steps, sequences[1:], checked.reduction, checked.window)
    if steps % size:
        raise UsageError(
            "The chunks do not fill the sequence.",
            got=f"{steps} steps, with an update after {size} each",
            expected="a whole number of chunks",
            do="cut the sequence, or pass another mode",
        )
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
    # every chunk moves the state on
    own = (*timed, "return_state", "window", "chunk_size")
    fixed = {k: v for k, v in options.items() if k not in own}
    windows = [options[k] for k in ("window", "chunk_size") if options.get(k)]
    fixed |= {"chunk_size": together} if together else {"window": min([size, *windows])}
    cut = lambda v: v.reshape(-1, size, *v.shape[1:])
    return Chunks(jax.tree.map(cut, sequences), jax.tree.map(cut, timed), fixed)
