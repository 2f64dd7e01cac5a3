"""Of pairs of rows, the elements of their outer products that a sparse matrix stores, summed over
time.

found[e] = sum_t x[t, into[e]] c[t, out[e]]

An x of zero meets nothing, and takes no time where the elements lie in the order of `into`, as the
rows of a CSR matrix do: the cost then follows the events in x.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._target import PAIRS, registered
from ._traces import met

Product = Callable[
    [Int[Array, " E"], Int[Array, " E"], Float[Array, "T I"], Float[Array, "T O"]],
    Float[Array, " E"],
]


def paired(
    out: Int[Array, " E"], into: Int[Array, " E"], x: Float[Array, "T I"], c: Float[Array, "T O"]
) -> Float[Array, " E"]:
    """The sums, in the dtype of x and c. Indices outside of them add nothing.

    On a processor it is the C kernel, where it could be built; elsewhere, in other dtypes and for
    derivatives, JAX.
    """
    fits = x.dtype == c.dtype and c.dtype in (np.float32, np.float64)
    if not fits or max(x.shape[1], c.shape[1], out.size) > np.iinfo(np.int32).max:
        return in_jax(out, into, x, c)
    return _with_derivative(out, into, x, c)


@jax.custom_jvp
def _with_derivative(
    out: Int[Array, " E"], into: Int[Array, " E"], x: Float[Array, "T I"], c: Float[Array, "T O"]
) -> Float[Array, " E"]:
    processor: Product = _in_c if registered() else in_jax
    return jax.lax.platform_dependent(out, into, x, c, cpu=processor, default=in_jax)


@_with_derivative.defjvp
def _derivative(primals: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    (out, into, *values), (_, _, *moved) = primals, tangents
    return jax.jvp(functools.partial(in_jax, out, into), values, moved)


def _in_c(
    out: Int[Array, " E"], into: Int[Array, " E"], x: Float[Array, "T I"], c: Float[Array, "T O"]
) -> Float[Array, " E"]:
    like = jax.ShapeDtypeStruct(out.shape, c.dtype)
    call = jax.ffi.ffi_call(PAIRS, like, vmap_method="sequential")
    return call(out.astype(np.int32), into.astype(np.int32), x, c)


def in_jax(
    out: Int[Array, " E"], into: Int[Array, " E"], x: Float[Array, "T I"], c: Float[Array, "T O"]
) -> Float[Array, " E"]:
    """The definition."""
    read = lambda row, at: row.at[at].get(mode="fill", fill_value=0, wrap_negative_indices=False)

    def add(total: Array, at: tuple[Array, Array]) -> tuple[Array, None]:
        x, c = at
        return total + met(read(x, into), read(c, out)), None

    zero = jnp.zeros(out.shape, np.result_type(x.dtype, c.dtype))
    return jax.lax.scan(add, zero, (x, c))[0]
