"""The traces of one weight: contracted with a learning signal and carried over some steps, in one
pass and in place.

gradient[o, i] += sum_{b, s} signal[s, b, o] old[s, b, o, i] + sum_b now[b, o] x[b, 0, i]
new[s, b, o, i] = sum_q rows[s, q, b, o] old[q, b, o, i] + sum_k drive[s, b, k, o] x[b, k, i]

Gradient and traces are laid out [o, i], or `across`: [i, o]. An old trace whose factor is zero is
not read: what a reset leaves behind may be NaN or infinite.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._compat import all_varying
from ._partition import partitioned
from ._target import TARGET, registered

MOST_SLOTS = 4  # as SLOTS of traces.c
_EXACT = jax.lax.Precision.HIGHEST  # accelerators would round the operands
_WRITTEN_OUT = 8  # samples at once

Traces = tuple[Float[Array, "B O I"] | Float[Array, "B I O"], ...]  # of each slot


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Operands:
    """Of one pass, all of one dtype, float32 or float64.

    `gradient`, [I, O] where `across`, is what is added to. `signal` and `old` are of each slot;
    with `now` K is 1. For a pass that moves the traces, `drive` is of each slot, and `rows` of each
    pair of slots, None where none reaches the other; without, both are empty.
    """

    gradient: Float[Array, "O I"] | Float[Array, "I O"]
    x: Float[Array, "B K I"]
    now: Float[Array, "B O"] | None
    signal: tuple[Float[Array, "B O"], ...]
    old: Traces
    rows: tuple[tuple[Float[Array, "B O"] | None, ...], ...] = ()
    drive: tuple[Float[Array, "B K O"] | None, ...] = ()


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def advance_and_contract(across: bool, operands: Operands) -> tuple[Array, Traces]:
    """(gradient, new traces); no traces without `rows`.

    On a processor it is the C kernel, where it could be built: memory speed, and no new array of a
    trace's size when the old ones may be overwritten. Elsewhere, and for derivatives, JAX.
    """
    plain = functools.partial(in_jax, across)
    processor = (
        _on_processor(across)
        if registered()
        else functools.partial(plain, contract=_sample_by_sample)
    )
    alike = lambda run: lambda operands: all_varying(run(operands), operands)
    return jax.lax.platform_dependent(operands, cpu=alike(processor), default=alike(plain))


@advance_and_contract.defjvp
def _derivative(
    across: bool, primals: tuple[Operands], tangents: tuple[Operands]
) -> tuple[PyTree, PyTree]:
    return jax.jvp(functools.partial(in_jax, across), primals, tangents)


def _on_processor(across: bool) -> Callable[[Operands], tuple[Array, Traces]]:
    """The C kernel. A map calls it for each of its entries, in turn; where these are one sample
    each, with a gradient of its own, one pass in JAX over all of them is faster.
    """
    kernel, plain = functools.partial(_shard_by_shard, across), functools.partial(in_jax, across)
    mappable = jax.custom_batching.custom_vmap(kernel)

    @mappable.def_vmap
    def mapped(size: int, is_mapped: list[Operands], operands: Operands) -> tuple[PyTree, PyTree]:
        [flags] = is_mapped
        axes = jax.tree.map(lambda flag: 0 if flag else None, flags)
        single = operands.x.shape[-3] == 1
        each = plain if single else functools.partial(_in_c, across)
        found = jax.vmap(each, (axes,), axis_size=size)(operands)
        return found, jax.tree.map(lambda _: True, found)

    return mappable


def _shard_by_shard(across: bool, operands: Operands) -> tuple[Array, Traces]:
    matrix = "io" if across else "oi"
    alike = lambda axes, of: jax.tree.map(lambda _: axes, of)
    single: dict[str, Any] = {"gradient": matrix, "x": "bki"}
    letters = dataclasses.replace(
        operands,
        **single,
        now=alike("bo", operands.now),
        signal=alike("bo", operands.signal),
        old=alike(f"b{matrix}", operands.old),
        rows=alike("bo", operands.rows),
        drive=alike("bko", operands.drive),
    )
    moved, plan = operands.old if operands.rows else (), jnp.asarray(_plan(across, operands))
    return partitioned(
        _call, (plan, operands), ("p", letters), (matrix, *[f"b{matrix}"] * len(moved))
    )


def _in_c(across: bool, operands: Operands) -> tuple[Array, Traces]:
    return _call(jnp.asarray(_plan(across, operands)), operands)


def _plan(across: bool, operands: Operands) -> np.ndarray:
    """What the kernel is told of its operands."""
    slots = len(operands.old)
    pairs = [row for reached in operands.rows for row in reached] or [None] * slots**2
    there = [v is not None for v in (*pairs, *(operands.drive or (None,) * slots))]
    moves = bool(operands.rows and operands.old)
    return np.array([across, operands.now is not None, moves, slots, *there], np.int32)


def _call(plan: Array, operands: Operands) -> tuple[Array, Traces]:
    moved, slots = operands.old if operands.rows else (), len(operands.old)
    pairs = [row for reached in operands.rows for row in reached]
    chosen = [v for v in (operands.now, *pairs, *operands.drive) if v is not None]
    of_slots = (*operands.signal, *operands.old)
    given = [plan, operands.gradient, operands.x, *chosen, *of_slots]
    aliases = {1: 0} | {len(given) - slots + s: 1 + s for s in range(len(moved))}
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (operands.gradient, *moved)]
    gradient, *new = jax.ffi.ffi_call(
        TARGET, shapes, vmap_method="sequential", input_output_aliases=aliases
    )(*given)
    return gradient, tuple(new)


def met(factor: Array, trace: Array) -> Array:
    """`factor * trace`; zero where the factor is, also where the trace is not finite.

    A finite trace is always read, so that the derivative with respect to a factor of zero is right.
    """
    return factor * jnp.where((factor == 0) & ~jnp.isfinite(trace), 0, trace)


def _contract_in_jax(across: bool, signal: Traces, old: Traces) -> Array:
    terms = [met(_outputs(across, a), e).sum(0) for a, e in zip(signal, old, strict=True)]
    return functools.reduce(jnp.add, terms)


def _sample_by_sample(across: bool, signal: Traces, old: Traces) -> Array:
    """As `_contract_in_jax`, for processors: a sum over the major axis is fast there only when it
    is written out.
    """

    def add(total: Array, sample: tuple[Traces, Traces]) -> tuple[Array, None]:
        signal, old = sample
        pairs = zip(signal, old, strict=True)
        return sum((met(_outputs(across, a), e) for a, e in pairs), total), None

    return jax.lax.scan(add, jnp.zeros_like(old[0][0]), (signal, old), unroll=_WRITTEN_OUT)[0]


def in_jax(
    across: bool,
    operands: Operands,
    contract: Callable[[bool, Traces, Traces], Array] = _contract_in_jax,
) -> tuple[Array, Traces]:
    """The definition."""
    gradient = operands.gradient + contract(across, operands.signal, operands.old)
    if operands.now is not None:
        form = "bo,bi->io" if across else "bo,bi->oi"
        gradient = gradient + jnp.einsum(form, operands.now, operands.x[:, 0], precision=_EXACT)
    new = []
    for reached, drive in zip(operands.rows, operands.drive, strict=True):
        terms = [
            met(_outputs(across, row), e)
            for row, e in zip(reached, operands.old, strict=True)
            if row is not None
        ]
        terms += [] if drive is None else [_products(across, drive, operands.x)]
        new.append(functools.reduce(jnp.add, terms) if terms else jnp.zeros_like(operands.old[0]))
    return gradient, tuple(new)


def _products(across: bool, drive: Float[Array, "B K O"], x: Float[Array, "B K I"]) -> Array:
    """For each sample, `sum_k drive[k, o] x[k, i]`."""
    if x.shape[1] > 1:
        return jnp.einsum("bko,bki->bio" if across else "bko,bki->boi", drive, x, precision=_EXACT)
    return _outputs(across, drive[:, 0]) * _outputs(not across, x[:, 0])


def _outputs(across: bool, values: Array) -> Array:
    """Values for each output, against the matrices; those of inputs lie the other way."""
    return values[..., None, :] if across else values[..., None]


def in_place() -> bool:
    """Whether traces on the default device are moved where they lie."""
    return jax.default_backend() == "cpu" and registered()
