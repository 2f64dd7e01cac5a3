"""What a user's step function does: how it calls the learner, which states it touches, what its
loss looks like.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import brainstate
import brainunit
import jax
import jax.numpy as jnp

from ...core._errors import UsageError, problem
from ._compiled import Compiled
from ._states import Layout, lent

Call = Callable[[tuple[Any, ...]], Any]
Activate = Callable[[Call], Any]  # a context in which the learner's calls go to a function


@dataclasses.dataclass
class Probe:
    """Findings. `written` and `read` are states outside the model's own."""

    calls: int = 0
    nested: bool = False  # a call inside a transformation of the step's own
    disturbed: set[str] = dataclasses.field(
        default_factory=set
    )  # model states changed otherwise than by the learner
    result: Any = None  # shapes of what the step returns
    written: list[brainstate.State] = dataclasses.field(default_factory=list)
    read: list[brainstate.State] = dataclasses.field(default_factory=list)

    @property
    def windowed(self) -> bool:
        """Whether steps can be taken together."""
        return self.calls == 1 and not self.nested and not self.disturbed


def probe(
    compiled: Compiled,
    activate: Activate,
    online: Call,
    step_fn: Callable[..., Any],
    slices: Any,
    own: list[brainstate.State],
) -> Probe:
    """Trace `step_fn` once. `own` are the learner's states beside the model's, `online` its
    ordinary call.

    A call inside a transformation of the step's own (a `jit`, say) must be the ordinary one: the
    transformation may keep its program, here or from before, and use it again.
    """
    found = Probe()
    layout: Layout = compiled.functional.carry
    last: list[Any] = []

    def look() -> None:
        now = layout.read().leaves
        found.disturbed |= {
            n for n, a, b in zip(layout.leaf_names, last, now, strict=True) if a is not b
        }

    def run(*slices: Any) -> Any:
        level = brainstate.util.StateJaxTracer()

        def call(x: tuple[Any, ...]) -> Any:
            found.calls += 1
            if not level.is_valid():
                found.nested = True
                return online(x)
            look()
            outs = forward(compiled, x)
            last[:] = layout.read().leaves
            return outs

        last[:] = layout.read().leaves
        with activate(call):
            result = step_fn(*slices)
        if not found.nested:
            look()
        return jax.tree.map(jnp.asarray, result)

    known = [*compiled.functional.states, *own]
    with lent(known) as trace:
        found.result = jax.eval_shape(run, *slices)
        ids, own_ids = {id(s) for s in known}, {id(s) for s in own}
        for state, written in zip(trace.states, trace.been_writen, strict=True):
            if id(state) in own_ids and written:
                found.nested = True
                found.calls = max(found.calls, 1)
            if id(state) not in ids:
                (found.written if written else found.read).append(state)
    if found.calls == 0:
        raise UsageError(
            problem(
                "step_fn does not call the learner.",
                expected="a function that calls learner(x) and returns the loss of a step",
                do="call the learner in it, not the model",
            )
        )
    return found


def forward(compiled: Compiled, x: tuple[Any, ...]) -> Any:
    """One step of the model, nothing learned."""
    xs = [jnp.asarray(v)[None] for v in compiled.inputs(x)]
    carry, outs = compiled.evolve(compiled.params(), compiled.carry(), xs)
    compiled.write(carry)
    return compiled.cell.out.unflatten([v[0] for v in outs])


def hidden_states_untouched(compiled: Compiled, found: Probe) -> None:
    """The step must leave hidden states to the learner."""
    layout = compiled.functional.carry
    hidden = [
        n
        for n, s in zip(layout.leaf_names, layout.leaf_states(), strict=True)
        if n in found.disturbed and isinstance(s, brainstate.ShortTermState)
    ]
    if hidden:
        raise UsageError(
            problem(
                "step_fn writes a state of the model outside of learner(x).",
                got=hidden,
                expected="states that only the learner's call writes: traces would not follow",
                do="to start lanes afresh pass reset=, a (T, B) array; to start all afresh call "
                "reset_state(model=True)",
            )
        )


def split_loss(result: Any, has_aux: bool) -> tuple[Any, Any]:
    """(loss, aux) of what a step returned."""
    if has_aux and not (isinstance(result, (tuple, list)) and len(result) == 2):
        raise UsageError(
            problem(
                "With has_aux, step_fn returns a pair.",
                got=type(result).__name__,
                expected="(loss, aux)",
                do="return the loss and a tree of arrays, or leave has_aux out",
            )
        )
    loss, aux = result if has_aux else (result, None)
    if isinstance(loss, brainunit.Quantity):
        raise UsageError(
            problem(
                "The loss has a unit.",
                got=str(loss.unit),
                expected="a plain number",
                do="divide by a scale, as in jnp.square((out / brainunit.mV))",
            )
        )
    shape, dtype = getattr(loss, "shape", None), getattr(loss, "dtype", None)
    if shape is None or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        raise UsageError(
            problem(
                "step_fn does not return a loss.",
                got=type(loss).__name__ if shape is None else f"{dtype}{list(shape)}",
                expected="a floating-point scalar, or one value per lane",
                do="return the loss of the step"
                + ("" if has_aux else "; pass has_aux=True to return (loss, aux)"),
            )
        )
    return loss, aux
