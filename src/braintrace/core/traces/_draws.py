"""Random numbers of a rule, as a part of its traces."""

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int32, PyTree, UInt32

from .._compat import is_key
from .._domains import described
from .._errors import UsageError
from ..analysis import CellGraph
from ._learned import learned_in, with_learned


class Draws(NamedTuple):
    """Where the random numbers of a rule come from: one draw for each sample and step.

    A rule draws where its traces hold one: `init` makes it, with the key 0, `advance` takes numbers
    from it and hands on `moved()`, and `reset` leaves it as it is. `learner.init(..., key=)` puts
    in the key. A draw depends on the key, the number of the step and that of the sample alone, so
    that it is the same on any window and under any transformation.

    >>> import jax.numpy as jnp
    >>> from braintrace import rules
    >>> draws = rules.Draws(jnp.zeros(2, jnp.uint32), jnp.zeros(4, jnp.int32))
    >>> draws.signs(3, jnp.float32).shape, draws.moved().steps.tolist()
    ((4, 3), [1, 1, 1, 1])
    """

    key: UInt32[Array, "2"]  # the words of a threefry key
    steps: Int32[Array, " B"]  # draws so far

    @classmethod
    def of(cls, graph: CellGraph) -> "Draws":
        """Before the first step, with the key 0."""
        return cls(jnp.zeros(2, jnp.uint32), jnp.zeros(graph.samples, jnp.int32))

    def signs(self, size: int, dtype: DTypeLike) -> Float[Array, "B size"]:
        """1 or -1, with equal chances, `size` of them for each sample."""
        key = jax.random.wrap_key_data(self.key, impl="threefry2x32")

        def of_sample(step: Int32[Array, ""], sample: Int32[Array, ""]) -> Array:
            own = jax.random.fold_in(jax.random.fold_in(key, step), sample)
            return jax.random.rademacher(own, (size,), jnp.int8)

        samples = jnp.arange(self.steps.shape[0])
        return jax.vmap(of_sample)(self.steps, samples).astype(dtype)

    def moved(self) -> "Draws":
        """After a step."""
        return self._replace(steps=self.steps + 1)


def draws_in(traces: PyTree) -> list[Draws]:
    """The `Draws` that traces hold: none where a rule does not draw."""
    return [v for v in jax.tree.leaves(traces, is_leaf=_is_draws) if _is_draws(v)]


def with_key(traces: PyTree, key: Any) -> PyTree:
    """Traces whose random numbers come from `key`, a whole number or a PRNG key."""
    words = jax.device_put(key_words("key", key))
    put = lambda v: v._replace(key=words) if _is_draws(v) else v
    return jax.tree.map(put, traces, is_leaf=_is_draws)


def begun(zero: PyTree, key: Any, before: PyTree) -> PyTree:
    """Zero traces that have what the traces `before` had learned, and whose random numbers come
    from `key`; without one (None) they go on where they were.
    """
    for kept in learned_in(before):
        zero = with_learned(zero, kept.weights)
    if key is not None:
        return with_key(zero, key)
    if not draws_in(zero):
        return zero
    choose = lambda v, old: old if _is_draws(v) else v
    return jax.tree.map(choose, zero, before, is_leaf=_is_draws)


def key_words(name: str, value: Any) -> UInt32[Array, "2"] | np.ndarray:
    """The words of the threefry key that a whole number or a PRNG key stands for; under a
    transformation, too.
    """
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return np.array([int(value) >> 32 & 0xFFFFFFFF, int(value) & 0xFFFFFFFF], np.uint32)
    if isinstance(value, jax.Array | np.ndarray):
        if is_key(value.dtype) and value.shape == ():
            words = jax.random.key_data(value)
            return words if words.shape == (2,) else jax.random.bits(value, (2,), jnp.uint32)
        if value.dtype == np.uint32 and value.shape == (2,):
            return jnp.asarray(value)
        if jnp.issubdtype(value.dtype, jnp.integer) and value.shape == ():
            return jax.random.key_data(jax.random.key(value, impl="threefry2x32"))
    raise UsageError(
        f"Invalid {name}.",
        got=described(value),
        expected="a whole number or a PRNG key",
        do="pass 0 or jax.random.key(0); for several keys map over them, "
        "jax.vmap(lambda key: learner.init(params, carry, key=key))(keys)",
    )


def _is_draws(value: object) -> bool:
    return isinstance(value, Draws)
