"""What an algorithm takes at each step beside the model's input: targets, modulators, weights of
what it adds to the loss. Each is a leaf of the carry, set before the step.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from .._errors import UsageError
from ..analysis import CellGraph
from ..signals import LOCAL_TARGET, LOSS_SCALE, MODULATOR, RATE_SCALE, TARGET, WEIGHT
from ..step import Values

# by the name of leaves a value for each of them, which may have size 1 for all along an axis
Signals = Mapping[str, Sequence[Array]]
Weights = Float[Array, " T"] | Float[Array, "T B"]  # of the losses
Shape = tuple[int, ...]
#: A signal for all its leaves, or a tuple of one for each.
Given = Array | tuple[Array, ...] | None


class _Argument(NamedTuple):
    word: str
    name: str
    needless: str


_TARGETS = _Argument("target", "y_target", "this algorithm does not project targets")
_ARGUMENTS = {
    TARGET: _TARGETS,
    LOCAL_TARGET: _TARGETS,
    MODULATOR: _Argument("modulator", "modulator", "this algorithm is not modulated"),
}


_SIGNALS = (*_ARGUMENTS, RATE_SCALE, WEIGHT, LOSS_SCALE)


def injects(graph: CellGraph) -> bool:
    """Whether the algorithm adds gradients of its own to the reverse pass of a step, whatever the
    step's cotangents are.
    """
    return any(leaf.name in _SIGNALS for leaf in graph.extra)


def taken(graph: CellGraph) -> list[str]:
    """The arguments by which the algorithm takes signals at each step."""
    return [a.name for name, a in _ARGUMENTS.items() if _shapes(graph, name)]


def with_signals(graph: CellGraph, carry: Values, signals: Signals) -> list[Array]:
    """`carry` with the leaves that `signals` names set, and other signals as they were at first:
    none is that of a step before.
    """
    out, own = list(carry), len(graph.carry) - len(graph.extra)
    for name in _SIGNALS:
        leaves = [(own + k, e.initial) for k, e in enumerate(graph.extra) if e.name == name]
        values = signals.get(name, [first for _, first in leaves])
        for (k, like), value in zip(leaves, values, strict=True):
            out[k] = jnp.broadcast_to(jnp.asarray(value, like.dtype), like.shape)
    return out


def step_signals(
    graph: CellGraph, y_target: Given = None, modulator: Given = None, timing: str | None = None
) -> dict[str, list[Array]]:
    """The signals of one step; checks that each is given where, and only where, the algorithm takes
    it.

    With `timing` 'sequence-end' a step may be without a target: its signal is zero.
    """
    skipped = y_target is None and timing == "sequence-end"
    target = {} if skipped else _checked(graph, _target_of(graph), y_target)
    return target | _checked(graph, MODULATOR, modulator)


def driver_signals(
    graph: CellGraph,
    weights: Weights,
    y_target: Given = None,
    modulator: Given = None,
    timing: str | None = None,
    scale: Float[ArrayLike, ""] = 1.0,
) -> dict[str, list[Array]]:
    """The signals of a sequence, time first and weighted as the losses are.

    With `timing` 'sequence-end' the target is (B, n_target), and acts at the last step of each
    sample that counts. `scale`: what the reduction makes of a loss of weight 1; what stands for
    later losses has it at every step up to the last one that counts.
    """
    steps = weights.shape[0]
    if timing == "sequence-end":
        signals = {} if y_target is None else _checked(graph, _target_of(graph), y_target)
        # the last step of each sample whose weight is not zero
        number = jnp.arange(steps)[:, None]
        last = jnp.where((weights != 0).reshape(steps, -1), number, -1).max(0)
        at_end = lambda y: jnp.where((number == last)[..., None], y, 0)
        signals = {name: [at_end(y) for y in ys] for name, ys in signals.items()}
    else:
        signals = _checked(graph, _target_of(graph), y_target, steps)
    signals |= _checked(graph, MODULATOR, modulator, steps)
    signals[WEIGHT] = [jnp.ones((steps, 1))] * len(_shapes(graph, WEIGHT))
    signals = {
        name: [_weighted(v, weights, counts=name == LOCAL_TARGET) for v in values]
        for name, values in signals.items()
    }
    for shape in _shapes(graph, LOSS_SCALE):
        counts = (weights != 0).reshape(steps, -1).astype(jnp.int8)
        if counts.shape[1:] != shape:  # samples that are not told apart
            counts = counts.max(1, keepdims=True)
        signals[LOSS_SCALE] = [jax.lax.cummax(counts, axis=0, reverse=True) * jnp.asarray(scale)]
    for shape in _shapes(graph, RATE_SCALE)[:1]:
        (samples,) = shape
        if weights.ndim == 1:
            weights = jnp.repeat(weights[:, None] / samples, samples, axis=1)
        if weights.shape[1] != samples:
            raise UsageError(
                "The losses are of another number of samples than the batch.",
                got=f"{weights.shape[1]} losses a step",
                expected=f"{samples}, or a scalar loss",
                do="say the batch to compile: batch_size, or batch=None for a scalar loss",
            )
        signals[RATE_SCALE] = [weights]
    return signals


def window_signals(graph: CellGraph, steps: int) -> dict[str, list[Array]]:
    """The signals of a window that is differentiated as one, time first: what stands for later
    losses acts at its exit.
    """
    last = jnp.zeros((steps, 1)).at[-1].set(1)
    return {LOSS_SCALE: [last] * len(_shapes(graph, LOSS_SCALE))}


def _target_of(graph: CellGraph) -> str:
    return LOCAL_TARGET if _shapes(graph, LOCAL_TARGET) else TARGET


def _weighted(values: Array, weights: Weights, counts: bool) -> Array:
    """A signal of each step, (T, B, ...), times the weight of that step's loss; with `counts` as it
    is where that is not zero.
    """
    ones = (1,) * (values.ndim - 2)
    weight = weights.reshape(weights.shape[0], -1, *ones) if values.ndim > 1 else weights
    return jnp.where(weight == 0, 0, values if counts else values * weight)


def _shapes(graph: CellGraph, name: str) -> list[Shape]:
    return [leaf.initial.shape for leaf in graph.extra if leaf.name == name]


def _accepted(graph: CellGraph, name: str, shape: Shape) -> dict[Shape, Shape]:
    """The shapes that the signal of a leaf may have at one step, each with what it stands for."""
    samples, ones = graph.batch_size, (1,) * (len(shape) - 1)
    forms = {shape: shape}
    if name == MODULATOR:  # one for each sample
        if samples is not None:
            forms.setdefault((samples,), (samples, *ones))
        if samples in (None, 1):
            forms.setdefault((), (1,) * len(shape))
    if samples in (None, 1) and shape[:1] == (1,):
        forms.setdefault(shape[1:], shape)
    return forms


def _checked(
    graph: CellGraph, name: str, given: Given, steps: int | None = None
) -> dict[str, list[Array]]:
    """A signal as the leaves take it, of one step or of a sequence."""
    argument, shapes = _ARGUMENTS[name], _shapes(graph, name)
    got = "none" if given is None else _described(given)
    accepted = [_accepted(graph, name, shape) for shape in shapes]
    if bool(shapes) != (given is not None):
        said = " or ".join(str(shape) for shape in list(accepted[0])[:2]) if shapes else ""
        each = f", or a tuple of one for each of {len(shapes)} hidden groups"
        raise UsageError(
            f"The {argument.word} of the step does not fit the algorithm.",
            got=got,
            expected=f"{argument.name} of shape {said}{each * (len(shapes) > 1)}"
            if shapes
            else f"no {argument.name}: {argument.needless}",
        )
    if given is None:
        return {}
    values = given if isinstance(given, tuple) else (given,) * len(shapes)
    if len(values) != len(shapes):
        raise UsageError(
            f"The number of {argument.word}s does not fit the model.",
            got=got,
            expected=f"{len(shapes)}: one for each hidden group",
            do="look at the groups in the report",
        )
    return {name: [_formed(argument, *of, steps) for of in zip(values, accepted, strict=True)]}


def _formed(
    argument: _Argument, value: Array, accepted: Mapping[Shape, Shape], steps: int | None
) -> Array:
    shape, lead = value.shape, () if steps is None else (steps,)
    if shape[: len(lead)] != lead:
        raise UsageError(
            f"The {argument.word} does not have the steps of the sequence.",
            got=_described(value),
            expected=f"shape {(*lead, *next(iter(accepted)))}",
        )
    own = shape[len(lead) :]
    if own not in accepted:
        expected = " or ".join(str(shape) for shape in accepted)
        got = f"an array of shape {own}"
        raise UsageError(
            f"The {argument.word} has a wrong shape.", got=got, expected=f"shape {expected}"
        )
    return value.reshape(*lead, *accepted[own])


def _described(given: Given) -> str:
    if isinstance(given, tuple):
        return f"{len(given)} arrays of shapes {', '.join(str(v.shape) for v in given)}"
    assert given is not None
    return f"an array of shape {given.shape}"
