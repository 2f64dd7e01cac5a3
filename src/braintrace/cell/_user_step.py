"""A step of the user's own around the cell's: the loss of a step that is no function of the cell's
output alone.
"""

import dataclasses
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ..core._compat import trace_state
from ..core._domains import described
from ..core._errors import UsageError
from ..core.analysis import BatchAxis
from ..core.engine import Body, Stepped
from ._arguments import Mask
from ._cell import Cell
from ._loss import split
from ._samples import shielded, weigh, without_padding

#: The model's own step: its input to (new carry, output).
Take = Callable[[PyTree], tuple[PyTree, PyTree]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Outside:
    """Arrays of a user's step that are no part of the model: those it is differentiated by, those
    that it writes, which move on from step to step, and those that it only reads.
    """

    live: list[jax.Array]
    moving: list[jax.Array]
    fixed: list[PyTree]


NOTHING = Outside([], [], [])

#: (params, carry before the step, the model's step, slices of the sequences, what it has outside of
#: the model) -> (loss, aux, the new values of `moving`)
UserStep = Callable[
    [PyTree, PyTree, Take, tuple[PyTree, ...], Outside], tuple[PyTree, PyTree, list[jax.Array]]
]


def user_body(
    cell: Cell,
    step: Callable[[PyTree, PyTree, Take, Any, list[jax.Array]], tuple[PyTree, PyTree, PyTree]],
    mask: Mask | None,
    reads_params: bool,
) -> Body:
    """The body of a user's step; slices are (those of the sequences, weight). A step that
    `reads_params` gets slices without padding: what they meet there has a gradient.

    What the step itself is differentiated by is the body's `extra`; the values that it carries on
    stand behind the engine's carry.
    """
    count = len(cell.graph.carry)
    axes = [cell.graph.batch_axis(v) for v in cell.graph.xs]

    def body(
        evaluate: Callable[..., PyTree],
        ready: PyTree,
        extra: PyTree,
        carry: list[jax.Array],
        perturbations: PyTree,
        at: PyTree,
    ) -> Stepped:
        slices, weight = at
        if mask is not None and reads_params:
            slices = without_padding(slices, weight, front_axes(slices, axes))

        def take(x: PyTree) -> PyTree:
            xs = cell.x.inputs(x, "input x")
            xs = xs if mask is None else without_padding(xs, weight, axes)
            result = evaluate(cell.graph, ready, carry[:count], xs, perturbations)
            out = cell.out.unflatten(shielded(result.outs, weight, mask))
            return (cell.carry.together(result.carry), out), (result, xs)

        before = cell.carry.together([jax.lax.stop_gradient(v) for v in carry])
        on = lambda take: step(extra, before, take, slices, carry[count:])
        (loss, aux, moved), (result, xs) = taken_once(on, take)
        result = result._replace(local=[*result.local, *moved])
        return Stepped(result, xs, weigh(loss, weight), (loss, aux))

    return body


def front_axes(slices: PyTree, axes: Sequence[BatchAxis | None]) -> list[BatchAxis | None]:
    """Where slices of sequences have the samples: on axis 0, if that is where the cell's inputs,
    whose axes are `axes`, have theirs.
    """
    front, *others = [axis for axis in {*axes} if axis is not None] or [None]
    if front is None or others or front != BatchAxis(0, front.size):
        return [None for _ in jax.tree.leaves(slices)]
    return [front if jnp.shape(v)[:1] == (front.size,) else None for v in jax.tree.leaves(slices)]


def taken_once(
    step: Callable[[Take], PyTree], take: Callable[[PyTree], PyTree]
) -> tuple[PyTree, PyTree]:
    """What `step(take)` returns, which must take the model's step once, and not inside a
    transformation of its own; and what `take(x)` gave beside what the step sees.
    """
    kept, level = [], trace_state()

    def counted(x: PyTree) -> tuple[PyTree, PyTree]:
        if trace_state() != level:
            raise UsageError(
                "step_fn calls the model inside a transformation of its own.",
                got="a call under jit, grad, vmap or scan",
                expected="call(x) directly in step_fn",
                do="transform what comes before and after the call",
            )
        seen, beside = take(x)
        kept.append(beside)
        return seen

    result = step(counted)
    if len(kept) != 1:
        raise UsageError(
            "step_fn calls the model once.",
            got=f"{len(kept)} calls",
            expected="one call of its argument `call`",
            do="call the model through it, not by itself"
            if not kept
            else "make each call a step of the sequences",
        )
    return result, kept[0]


def plain_user_step(
    function: Callable[..., PyTree], step: UserStep
) -> Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]:
    """The cell `(params, carry, slices) -> (carry, loss)` of a user's step around `function`: what
    BPTT goes through.
    """

    def cell(params: PyTree, carry: PyTree, slices: PyTree) -> tuple[PyTree, PyTree]:
        def take(x: PyTree) -> PyTree:
            new, out = function(params, carry, x)
            return (new, out), new

        on = lambda take: step(params, carry, take, slices, NOTHING)
        (loss, *_), new = taken_once(on, take)
        return new, loss

    return cell


def user_step(step_fn: Callable[..., PyTree], has_aux: bool, name: str = "step_fn") -> UserStep:
    """`step_fn(params, call, *slices)`, with `call(x) -> out`, as a `UserStep`; `name` is what the
    user calls it.
    """

    def step(params: PyTree, carry: PyTree, take: Take, slices: PyTree, outside: Outside) -> PyTree:
        result = step_fn(params, lambda x: take(x)[1], *slices)
        return *split(result, has_aux, name), outside.moving

    return step


OF_OUTPUT = "the output, and a slice of each target"


def check_loss(
    loss_fn: Callable[..., PyTree] | None,
    step_fn: Callable[..., PyTree] | None,
    sequences: int,
    model: str,
) -> None:
    """One of `loss_fn` and `step_fn` is given, and `step_fn` takes what it will be given."""
    if (loss_fn is None) == (step_fn is None):
        raise UsageError(
            "The loss is said in one way.",
            got="neither" if loss_fn is None else "loss_fn and step_fn",
            expected=f"loss_fn(out, *targets), or step_fn({model}, call, *slices)",
            do="pass one of them by its name, as in loss_fn=f",
        )
    if step_fn is None:
        _check_function("loss_fn", loss_fn, OF_OUTPUT)  # when it is traced, what it takes
    else:
        slices = f"a slice of each of {sequences} sequences"
        check_takes("step_fn", step_fn, 2 + sequences, f"({model}, call, *slices), with {slices}")


def check_takes(name: str, function: Any, count: int, what: str) -> None:
    """`function` is one, and takes `count` arguments."""
    _check_function(name, function, what)
    try:
        signature = inspect.signature(function)
    except ValueError:  # of some that are built in
        return
    try:
        signature.bind(*range(count))
    except TypeError as error:
        raise UsageError(
            f"{name} does not take what it is given.",
            got=f"{name}{signature}: {error}",
            expected=f"a function of {what}",
            do="call the model's step as call(x) in it" if name == "step_fn" else "",
        ) from error


def _check_function(name: str, function: object, what: str) -> None:
    if not callable(function):
        raise UsageError(
            f"{name} is not a function.", got=described(function), expected=f"a function of {what}"
        )
