"""What goes from step to step, and what a sequence reports."""

import dataclasses
import functools
import zlib

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int32, PyTree

from ._fidelity import Fidelity

_STATIC = {"static": True}  # part of the structure

#: What random numbers are drawn with: a whole number or a PRNG key.
Key = int | Array


class Fingerprint(str):
    """The text of a fingerprint, which is long: where structures are printed it shows a sum."""

    def __repr__(self) -> str:
        return f"<{zlib.crc32(self.encode()):08x}>"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """What a learner of a function or an Equinox module carries from step to step: a pytree.

    A learner takes the states that it made, and refuses those of another one. `vars(state)` is a
    plain dict, and `State(**that)` the state again. Works with `pickle`, `jax.export` and
    `flax.serialization`.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, x = jnp.ones((4, 3)), jnp.zeros((2, 3)), jnp.ones((2, 4))
    >>> learner = braintrace.compile(cell, "d_rtrl", x, params=w, carry=h)
    >>> state, out = learner.update(w, learner.init(w, h), x)
    >>> isinstance(state, braintrace.State), state.carry.shape, int(state.steps)
    (True, (2, 3), 1)

    Attributes:
        carry: the cell's carry, as the user's tree.
        traces: the eligibility traces; None before they are formed (`init(..., traces=False)`).
        steps: int32 scalar, the number of steps consumed; it stops at its largest value instead of
            wrapping.
        fingerprint: what made the state, as JSON: the algorithm with its options, the model's
            parameters and carry, the traces, the version of the library. It is static, no array. A
            state without one (None) is checked by structure, shapes and dtypes alone.
    """

    __module__ = "braintrace"

    carry: PyTree
    traces: PyTree
    steps: Int32[Array, "..."]  # a scalar, and the axes of jax.vmap over states
    fingerprint: str | None = dataclasses.field(default=None, metadata=_STATIC)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Info:
    """What a sequence driver of a function, an Equinox or an NNX module reports: a pytree.

    >>> import braintrace, jax.numpy as jnp
    >>> cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    >>> w, h, xs = jnp.ones((4, 3)), jnp.zeros((2, 3)), jnp.ones((5, 2, 4))
    >>> learner = braintrace.compile(cell, "d_rtrl", xs[0], params=w, carry=h)
    >>> loss_fn = lambda out: (out.sum(-1), out.max())
    >>> gradient, state, info = learner.etrace_grad(
    ...     w, learner.init(w, h), xs, loss_fn=loss_fn, has_aux=True
    ... )
    >>> isinstance(info, braintrace.Info), info.losses.shape, info.aux.shape
    (True, (5, 2), (5,))

    Attributes:
        losses: (T,) or, for a loss with one value per sample, (T, B), as the loss function gave
            them, not weighted.
        aux: what the loss function returned beside the loss (`has_aux`), stacked over time; else
            None.
        by_step: what the algorithm reports of each step, time first: an `ErrorBound` of `SK_RTRL`
            with its certificate; None of the others.
        fidelity: with `fidelity=True` a `Fidelity` of each parameter, by its path; else None.
    """

    __module__ = "braintrace"

    losses: Float[Array, "T *B"]
    aux: PyTree = None
    by_step: PyTree = None
    fidelity: dict[str, Fidelity] | None = None


@functools.partial(jax.jit, static_argnums=1)
def counted(before: Int32[Array, "..."], steps: int) -> Int32[Array, "..."]:
    """A number of steps that has grown by `steps`; it stops at its largest value."""
    last = jnp.iinfo(jnp.int32).max
    return jnp.where(before > last - steps, last, before + steps).astype(jnp.int32)


def owned(tree: PyTree) -> PyTree:
    """`tree` with arrays of its own, each in one place: whoever donates it, or what it was copied
    from, deletes no other's. Shapes alone stay as they are.
    """
    abstract = lambda v: isinstance(v, jax.ShapeDtypeStruct)
    return jax.tree.map(lambda v: v if abstract(v) else jnp.array(v), tree)


@jax.jit
def no_steps() -> Int32[Array, ""]:
    """The number of steps before the first."""
    return jnp.zeros((), jnp.int32)
