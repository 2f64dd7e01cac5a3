"""A step of the user's own around the cell's: the loss of a step that is no function of the cell's
output alone.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..core._compat import trace_state
from ..core._errors import UsageError, problem
from ..core.engine import Body, Stepped
from ._cell import Cell
from ._lanes import shielded, weigh

#: The model's own step: its input to (new carry, output).
Take = Callable[[Any], tuple[Any, Any]]
#: (params, carry before the step, the model's step, slices of the sequences) -> (loss, aux)
UserStep = Callable[[Any, Any, Take, tuple[Any, ...]], tuple[Any, Any]]


def user_body(
    cell: Cell, step: Callable[[list[Any], Any, Take, Any], tuple[Any, Any]], mask: Any
) -> Body:
    """The body of a user's step; slices are (those of the sequences, weight).

    The parameters as the step itself reads them are the body's `extra`.
    """

    def body(
        evaluate: Any, ready: Any, extra: Any, carry: list[Any], nudges: Any, at: Any
    ) -> Stepped:
        slices, weight = at
        done: list[Any] = []

        def take(x: Any) -> tuple[Any, Any]:
            xs = cell.x.flatten(x, "input x")
            result = evaluate(cell.graph, ready, carry, xs, nudges)
            done[:] = [(result, xs)]
            return cell.tree_carry(result.carry), cell.out.unflatten(
                shielded(result.outs, weight, mask)
            )

        before = cell.tree_carry([jax.lax.stop_gradient(v) for v in carry])
        loss, aux = taken_once(step, extra, before, take, slices)
        [(result, xs)] = done
        return Stepped(result, xs, weigh(loss, weight), (loss, aux))

    return body


def taken_once(step: Callable[..., Any], params: Any, carry: Any, take: Take, slices: Any) -> Any:
    """What `step` returns, which must take the model's step once, and not inside a transformation
    of its own.
    """
    calls, level = [0], trace_state()

    def counted(x: Any) -> tuple[Any, Any]:
        calls[0] += 1
        if trace_state() != level:
            raise UsageError(
                problem(
                    "step_fn calls the model inside a transformation of its own.",
                    got="a call under jit, grad, vmap or scan",
                    expected="call(x) directly in step_fn",
                    do="transform what comes before and after the call",
                )
            )
        return take(x)

    result = step(params, carry, counted, slices)
    if calls[0] != 1:
        raise UsageError(
            problem(
                "step_fn calls the model once.",
                got=f"{calls[0]} calls",
                expected="one call of its argument `call`",
                do="call the model through it, not by itself"
                if not calls[0]
                else "make each call a step of the sequences",
            )
        )
    return result


def plain_user_step(
    function: Callable[..., Any], step: UserStep
) -> Callable[[Any, Any, Any], tuple[Any, Any]]:
    """The cell `(params, carry, slices) -> (carry, loss)` of a user's step around `function`: what
    BPTT goes through.
    """

    def cell(params: Any, carry: Any, slices: Any) -> tuple[Any, Any]:
        done: list[Any] = []

        def take(x: Any) -> tuple[Any, Any]:
            new, out = function(params, carry, x)
            done[:] = [new]
            return new, out

        loss, _ = taken_once(step, params, carry, take, slices)
        return done[0], loss

    return cell


def user_step(step_fn: Any, has_aux: bool) -> UserStep:
    """`step_fn(params, call, *slices)`, with `call(x) -> out`, as a `UserStep`."""

    def step(params: Any, carry: Any, take: Take, slices: tuple[Any, ...]) -> tuple[Any, Any]:
        return split(step_fn(params, lambda x: take(x)[1], *slices), has_aux)

    return step


def split(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """(loss, aux) of what a loss function or a step returned."""
    if has_aux and not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise UsageError(
            problem(
                "With has_aux, the loss comes in a pair.",
                got=type(result).__name__,
                expected="(loss, aux)",
                do="return the loss and a tree of arrays, or leave has_aux out",
            )
        )
    loss, aux = result if has_aux else (result, None)
    return jnp.asarray(loss), aux


def check_loss(loss_fn: Any, step_fn: Any, sequences: int, model: str) -> None:
    """One of `loss_fn` and `step_fn` is given, and `step_fn` takes what it will be given."""
    if (loss_fn is None) == (step_fn is None):
        raise UsageError(
            problem(
                "The loss is said in one way.",
                got="neither" if loss_fn is None else "loss_fn and step_fn",
                expected=f"loss_fn(out, *targets), or step_fn({model}, call, *slices)",
                do="pass one of them",
            )
        )
    if step_fn is None:
        return
    try:
        inspect.signature(step_fn).bind(*range(2 + sequences))
    except TypeError as error:
        raise UsageError(
            problem(
                "step_fn does not take what it is given.",
                got=f"step_fn{inspect.signature(step_fn)}: {error}",
                expected=f"step_fn({model}, call, *slices), with a slice of each of {sequences} sequences",
                do="call the model's step as call(x) in it",
            )
        ) from error
