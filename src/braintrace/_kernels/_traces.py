"""The traces of one weight: contracted with a learning signal and carried over some steps, in one pass and in place.

gradient[o, i]  = sum_{b, s} signal[s, b, o] old[s, b, o, i]
new[s, b, o, i] = sum_q rows[s, q, b, o] old[q, b, o, i] + sum_k drive[s, b, k, o] x[b, k, i]
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._build import compiled

MOST_SLOTS = 4  # as SLOTS of traces.c
_TARGET = "braintrace_traces"
_EXACT = jax.lax.Precision.HIGHEST  # accelerators would round the operands
_WRITTEN_OUT = 8  # lanes at once

Traces = tuple[jax.Array, ...]


def advance_and_contract(
    coupling: np.ndarray, rows: jax.Array, drive: jax.Array, x: jax.Array, signal: jax.Array, old: Sequence[jax.Array]
) -> tuple[jax.Array, Traces]:
    """(gradient, new traces). `coupling` (S, S) says which rows may differ from zero.

    Shapes: rows (S, S, B, O), drive (S, B, K, O), x (B, K, I), signal (S, B, O), each trace (B, O, I), gradient (O, I); all of
    one dtype, float32 or float64. On a processor it is the C kernel, where it could be built: memory speed, no new array of a
    trace's size when `old` may be overwritten. Elsewhere, and for derivatives, JAX.
    """
    return _either(tuple(map(tuple, np.asarray(coupling, bool).tolist())), rows, drive, x, signal, tuple(old))


@jax.custom_jvp
def contract(signal: jax.Array, old: Traces) -> jax.Array:
    """The gradient alone."""
    processor = _contract_in_c if _registered() else _lane_by_lane
    return jax.lax.platform_dependent(signal, old, cpu=processor, default=_contract_in_jax)


@contract.defjvp
def _derivative_of_contract(primals: Any, tangents: Any) -> tuple[Any, Any]:
    return jax.jvp(_contract_in_jax, primals, tangents)


def _contract_in_c(signal: jax.Array, old: Traces) -> jax.Array:
    slots, (lanes, outputs, inputs), dtype = len(old), old[0].shape, old[0].dtype
    gradient = jax.ShapeDtypeStruct((outputs, inputs), dtype)
    unread = jnp.zeros((slots, slots), jnp.int32), jnp.zeros((0,), dtype)
    no_steps = jnp.zeros((slots, lanes, 0, outputs), dtype), jnp.zeros((lanes, 0, inputs), dtype)
    return jax.ffi.ffi_call(_TARGET, gradient, vmap_method="sequential")(*unread, *no_steps, signal, *old)


def _contract_in_jax(signal: jax.Array, old: Traces) -> jax.Array:
    terms = [jnp.einsum("bo,boi->oi", a, e, precision=_EXACT) for a, e in zip(signal, old, strict=True)]
    return functools.reduce(jnp.add, terms)


def _lane_by_lane(signal: jax.Array, old: Traces) -> jax.Array:
    """As `_contract_in_jax`, for processors: a sum over the major axis is fast there only when it is written out."""

    def add(total: jax.Array, lane: tuple[jax.Array, Traces]) -> tuple[jax.Array, None]:
        signal, old = lane
        return functools.reduce(jnp.add, [a[:, None] * e for a, e in zip(signal, old, strict=True)], total), None

    return jax.lax.scan(add, jnp.zeros_like(old[0][0]), (jnp.swapaxes(signal, 0, 1), old), unroll=_WRITTEN_OUT)[0]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _either(coupling: tuple[tuple[bool, ...], ...], *operands: Any) -> tuple[jax.Array, Traces]:
    plain = functools.partial(_in_jax, coupling)
    processor = functools.partial(_in_c, coupling) if _registered() else functools.partial(plain, contract=_lane_by_lane)
    return jax.lax.platform_dependent(*operands, cpu=processor, default=plain)


@_either.defjvp
def _derivative(coupling: tuple[tuple[bool, ...], ...], primals: Any, tangents: Any) -> tuple[Any, Any]:
    return jax.jvp(functools.partial(_in_jax, coupling), primals, tangents)


def _in_c(
    coupling: tuple[tuple[bool, ...], ...], rows: jax.Array, drive: jax.Array, x: jax.Array, signal: jax.Array, old: Traces
) -> tuple[jax.Array, Traces]:
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in old]
    gradient = jax.ShapeDtypeStruct(old[0].shape[1:], old[0].dtype)
    aliases = {5 + s: 1 + s for s in range(len(old))}
    call = jax.ffi.ffi_call(_TARGET, [gradient, *shapes], vmap_method="sequential", input_output_aliases=aliases)
    found, *new = call(jnp.asarray(coupling, jnp.int32), rows, drive, x, signal, *old)
    return found, tuple(new)


def _in_jax(
    coupling: tuple[tuple[bool, ...], ...], rows: jax.Array, drive: jax.Array, x: jax.Array, signal: jax.Array, old: Traces,
    contract: Callable[[jax.Array, Traces], jax.Array] = _contract_in_jax,
) -> tuple[jax.Array, Traces]:  # fmt: skip
    new = []
    for s, reached in enumerate(coupling):
        several = x.shape[1] > 1
        added = (
            jnp.einsum("bko,bki->boi", drive[s], x, precision=_EXACT) if several else drive[s, :, 0, :, None] * x[:, 0, None, :]
        )
        new.append(sum((rows[s, q, :, :, None] * old[q] for q, coupled in enumerate(reached) if coupled), added))
    return contract(signal, old), tuple(new)


def in_place() -> bool:
    """Whether traces on the default device are moved where they lie."""
    return jax.default_backend() == "cpu" and _registered()


@functools.cache
def _registered() -> bool:
    found = compiled()
    if found is None:
        return False
    jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(found.braintrace_traces), platform="cpu")
    return True
