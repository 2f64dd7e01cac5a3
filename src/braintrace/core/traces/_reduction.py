"""Sums of Kronecker products with fewer terms, without a bias.

`sum_i left[i] (x) right[i]` is a matrix; each function gives a random sum whose mean over equally
likely signs is the given one. Everything is of one sample.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

EXACT = jax.lax.Precision.HIGHEST
# added to norms, so that a term of zero has a ratio: a part of their rounding in float32
_EPSILON = 1e-7
_ROUNDINGS = 16

Left = Inexact[Array, "r I"]
Right = Inexact[Array, "r N"]


def mixed(left: Left, right: Right, signs: Float[Array, " r"]) -> tuple[Left, Right]:
    """One term: signed sums of each side, with the norms of both sides of a term made equal first
    (Mujika et al., 2018). A term of zero, after a reset say, leaves nothing.
    """
    norms = [jnp.linalg.norm(v, axis=1) for v in (left, right)]
    scale = jnp.sqrt((norms[1] + _EPSILON) / (norms[0] + _EPSILON))
    signs = jnp.where((norms[0] > 0) & (norms[1] > 0), signs, 0)
    total = lambda factors, v: jnp.einsum("r,ri->i", factors.astype(v.dtype), v, precision=EXACT)
    return total(signs * scale, left)[None], total(signs / scale, right)[None]


def reduced(left: Left, right: Right, signs: Float[Array, " r"]) -> tuple[Left, Right]:
    """One term less, with the least variance that there is (Benzing et al., 2019).

    Of the singular values s_0 >= s_1 >= ... the large ones are kept as they are. Those from m on,
    the first with s_m (r - m) <= S = s_m + ... + s_r, are mixed: by an orthonormal basis, with
    random signs, of what is orthogonal to z_i = sqrt(1 - s_i (r - m) / S).
    """
    count = left.shape[0]  # r + 1
    (q_left, r_left), (q_right, r_right) = jnp.linalg.qr(left.T), jnp.linalg.qr(right.T)
    core = jnp.matmul(r_left, r_right.T, precision=EXACT)
    u, values, vh = jnp.linalg.svd(core, full_matrices=False)
    more = ((0, 0), (0, count - values.shape[0]))
    in_left = jnp.pad(jnp.matmul(q_left, u, precision=EXACT), more)
    in_right = jnp.pad(jnp.matmul(q_right, vh.T, precision=EXACT), more)
    # what is left of a zero, and would be mixed at its square root
    rounding = _ROUNDINGS * jnp.finfo(values.dtype).eps * values[0]
    values = jnp.pad(jnp.where(values > rounding, values, 0), more[1])
    # which of the two signs a vector has is the choice of a library
    signs = signs * jnp.where(in_left.real.sum(0) < 0, -1, 1)

    numbers, tails = jnp.arange(count), jnp.cumsum(values[::-1])[::-1]
    m = jnp.argmax(values * (count - 1 - numbers) <= tails)  # at most r - 1
    mixes, total, terms = numbers >= m, tails[m], count - 1 - m
    share = jnp.where(total > 0, values / jnp.where(total > 0, total, 1), 1 / (terms + 1))
    z = jnp.where(mixes, jnp.sqrt(jnp.maximum(1 - share * terms, 0)), 0)
    # a reflection takes the last unit vector to -z, and those before m to themselves
    v = (z / jnp.linalg.norm(z)).at[-1].add(1)
    basis = (jnp.eye(count) - 2 * jnp.outer(v, v) / (v @ v))[:, :-1]
    scale = jnp.where(mixes, signs * jnp.sqrt(total / terms), jnp.sqrt(values))
    factors = (scale[:, None] * basis).astype(values.dtype)
    side = lambda v: jnp.matmul(v, factors.astype(v.dtype), precision=EXACT).T
    return side(in_left), side(in_right)
