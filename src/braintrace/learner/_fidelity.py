"""How good the gradient of a sequence is, parameter by parameter: against BPTT over that sequence,
or by the bound that the algorithm carries.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..core.analysis import CellGraph, Exactness
from ..core.jaxpr import ELEMENTWISE, Equation, Var, evaluate
from ..core.traces import ErrorBound

_KEEPS_ORDER = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims", "copy")


class Fidelity(NamedTuple):
    """How the gradient of a parameter compares with the exact one.

    With g the exact gradient and ĝ the online one, both of the reduced loss of the sequence at the
    parameters of the call. Beside a bound (`SK_RTRL` with its certificate) g is the gradient since
    the traces began, the cosine is at least the one that is given, and the relative error at most;
    -1 and inf where the bound says nothing. Else g is BPTT over the sequence from the state at its
    start, ĝ is computed from zero traces, and both numbers are theirs: what the traces hold of
    earlier sequences is in neither.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := jnp.tanh(h @ w + x)), h)
    >>> w, h, xs = jnp.eye(3) + 0.1, jnp.zeros((2, 3)), jnp.ones((5, 2, 3))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=w, carry=h)
    >>> *_, info = learner.etrace_grad(
    ...     w, learner.init(w, h), xs, loss_fn=lambda out: out.sum(-1), fidelity=True
    ... )
    >>> isinstance(info.fidelity["value"], braintrace.Fidelity)
    True

    Attributes:
        cosine: of the angle between ĝ and g; 1 where both are zero, 0 where one is.
        relative_error: the norm of ĝ - g by that of g; 0 where both are zero.
    """

    __module__ = "braintrace"

    cosine: Float[Array, ""]
    relative_error: Float[Array, ""]


def compared(
    paths: Sequence[str], found: Sequence[Array | None], exact: Sequence[Array | None]
) -> dict[str, Fidelity]:
    """By path of the parameter, that of gradients to exact ones; None has none."""
    pairs = zip(paths, found, exact, strict=False)
    return {path: _of_pair(a, b) for path, a, b in pairs if a is not None and b is not None}


def _of_pair(found: Array, exact: Array) -> Fidelity:
    wide = jnp.promote_types(found.dtype, jnp.float32)
    a, b = found.astype(wide).ravel(), exact.astype(wide).ravel()
    size, length, off = map(jnp.linalg.norm, (a, b, a - b))
    both = size * length
    cosine = jnp.where(both == 0, off == 0, jnp.vdot(a, b).real / jnp.where(both == 0, 1, both))
    error = jnp.where(length == 0, jnp.inf, off / jnp.where(length == 0, 1, length))
    return Fidelity(cosine, jnp.where(off == 0, 0, error))


def bounded(
    graph: CellGraph, params: Sequence[Array], found: Sequence[Array | None], steps: ErrorBound
) -> dict[str, Fidelity]:
    """By path of the parameter, what a bound on each step's gradient says of the sequence's."""
    bound, numbers = steps.error.sum(), {v: k for k, v in enumerate(graph.params)}
    result = {}
    for row, gradient, param in zip(graph.parameters, found, graph.params, strict=False):
        if gradient is None:
            continue
        off = bound * _stretch(graph, params, numbers[param])
        if row.exactness is Exactness.EXACT:
            off = jnp.zeros_like(off)
        size = jnp.linalg.norm(gradient.astype(jnp.promote_types(gradient.dtype, jnp.float32)))
        known = (off < size) | (off == 0)
        part = jnp.where(known, off, 0) / jnp.where(size == 0, 1, size)
        cosine = jnp.where(known, jnp.sqrt(1 - part**2), -1)
        error = jnp.where(known, part / (1 - part), jnp.inf)
        result[row.path] = Fidelity(cosine, error)
    return result


def _stretch(graph: CellGraph, params: Sequence[Array], number: int) -> Float[Array, ""]:
    """The most by which an error of one sample's weights is longer as that of a parameter: the
    spectral norm of the weights' derivative. inf where an element of a weight depends on several of
    the parameter, so that the derivative has no one number in a row.
    """
    weights = {s.weight: graph.weight_axis(s) for s in graph.sites if number in s.params}
    if not weights:
        return jnp.zeros(())
    if not weights.keys() <= _one_to_many(graph.prelude, graph.params[number]):
        return jnp.full((), jnp.inf)

    def made(value: Array) -> list[Array]:
        env: dict[Var, Array] = dict(zip(graph.params, params, strict=True))
        env[graph.params[number]] = value
        evaluate(graph.prelude, env)
        return [env[w] for w in weights]

    value = params[number]
    _, slopes = jax.jvp(made, (value,), (jnp.ones_like(value),))
    _, pull = jax.vjp(made, value)
    pairs = zip(slopes, weights.values(), strict=True)
    of_one = [jnp.conj(s) / (1 if axis is None else axis.size) for s, axis in pairs]
    return jnp.sqrt(jnp.abs(pull(of_one)[0]).max())


def _one_to_many(prelude: Sequence[Equation], param: Var) -> set[Var]:
    """The variables of which each element depends on one element of the parameter at most."""
    moved: Mapping[Var, bool | None] = {param: False}  # None: on several
    for e in prelude:
        kinds = [moved[v] for v in dict.fromkeys(e.inputs) if isinstance(v, Var) and v in moved]
        if not kinds:
            continue
        together = len(kinds) == 1 or not any(kinds)
        kind = None
        if e.primitive.name in _KEEPS_ORDER and kinds != [None]:
            kind = True
        elif e.primitive in ELEMENTWISE and None not in kinds and together:
            kind = any(kinds)
        moved = {**moved, **dict.fromkeys(e.outputs, kind)}
    return {v for v, kind in moved.items() if kind is not None}
