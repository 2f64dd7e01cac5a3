"""Filters over time: the functions that trace helpers and algorithms share."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_EXACT = jax.lax.Precision.HIGHEST
LONGEST_PRODUCT = 64  # steps that are done as a product with powers


def kappa_step(value: Any, x: Any, kappa: Any) -> Any:
    """`v <- (1 - kappa) x + kappa v`: a low-pass filter of unit gain."""
    return (1 - kappa) * x + kappa * value


def leaky_step(value: Any, x: Any, leak: Any) -> Any:
    """`v <- leak v + x`: a leaky sum."""
    return leak * value + x


def leaky_sums(values: jax.Array, first: jax.Array, leak: float) -> jax.Array:
    """`leaky_step` over the leading axis of `values`, from `first`: every sum, in the dtype of
    `first`.
    """
    if values.shape[0] > LONGEST_PRODUCT:
        one = lambda old, x: ((new := leaky_step(old, x, leak).astype(old.dtype)), new)
        return jax.lax.scan(one, first, values)[1]
    wide = np.result_type(first.dtype, np.float32)
    ages = np.arange(values.shape[0])[:, None] - np.arange(
        -1, values.shape[0]
    )  # of `first` and of each value
    powers = np.where(ages >= 0, float(leak) ** np.maximum(ages, 0), 0)
    terms = jnp.concatenate(
        [first[None].astype(wide), values.astype(wide)]
    )  # in one product: sums are added nowhere
    return jnp.tensordot(jnp.asarray(powers, wide), terms, 1, precision=_EXACT).astype(first.dtype)


def linear_sums(
    values: Sequence[Any], first: Sequence[jax.Array], matrix: np.ndarray, steps: int
) -> list[jax.Array]:
    """`v[s] <- sum_q matrix[s, q] v[q] + values[s][t]` over the steps t, from `first`: for each s,
    `first` and every sum.

    Values are arrays with time in front, or one number for all steps and elements. The powers of
    the matrix are multiplied with the steps, whose number should be small.
    """
    powers = [np.eye(len(first))]
    for _ in range(steps):
        powers.append(matrix @ powers[-1])
    response = np.zeros(
        (len(first), len(first), steps + 1, steps)
    )  # of v[s] before step t to values[q][r]
    for t in range(steps + 1):
        for r in range(t):
            response[:, :, t, r] = powers[t - 1 - r]
    wide = np.result_type(first[0].dtype, np.float32)
    over_time = lambda numbers: jnp.asarray(numbers, wide).reshape(-1, *(1,) * first[0].ndim)
    found = []
    for s in range(len(first)):
        total = 0
        for q, (x, v) in enumerate(zip(values, first, strict=True)):
            total = total + over_time([p[s, q] for p in powers]) * v
            if isinstance(x, float):
                total = total + over_time(x * response[s, q].sum(1))
            elif response[s, q].any():
                total = total + jnp.tensordot(
                    jnp.asarray(response[s, q], wide), x.astype(wide), 1, precision=_EXACT
                )
        found.append(jnp.asarray(total).astype(first[0].dtype))
    return found


def counting(dtype: Any) -> Any:
    """A real dtype for weights and counts beside values of `dtype`: at least float32."""
    wide = np.promote_types(np.dtype(dtype), np.float32)
    return np.finfo(wide).dtype


def lane_shaped(values: Any, like: Any) -> Any:
    """Values given for each lane (axis 0), shaped to multiply `like`."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1)).astype(like.dtype)
