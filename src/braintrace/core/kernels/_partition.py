"""The C kernel on several devices: each runs it on its own part of the traces, which stay where
they are.

XLA cannot look into the kernel and would gather its operands. Samples, outputs and inputs may each
be divided: traces are moved element by element, and the gradient is a sum over samples.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

Kernel = Callable[..., PyTree]  # of a plan and `Operands`: (gradient, new traces)


def partitioned(kernel: Kernel, operands: PyTree, letters: PyTree, results: PyTree) -> PyTree:
    """`kernel(*operands)`, shard by shard. `letters` names the axes of each operand, and `results`
    those of (gradient, traces): b for samples, o for outputs, i for inputs, k for steps, p for a
    plan. The second operand is the gradient so far.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.manual_axes and mesh.auto_axes:
        return _by_outputs(kernel, operands, letters, results, mesh)
    structure = jax.tree.structure(operands)
    call = _call(kernel, structure, tuple(jax.tree.leaves(letters)), tuple(results))
    return call(*jax.tree.leaves(operands))


@functools.lru_cache(maxsize=256)
def _call(
    kernel: Kernel, structure: Any, letters: tuple[str, ...], results: tuple[str, ...]
) -> Callable[..., PyTree]:
    of_leaves = lambda *leaves: kernel(*structure.unflatten(leaves))
    by_axes = sorted(range(len(letters)), key=lambda k: {"b", "o", "i"} <= {*letters[k]})

    def partition(mesh: Mesh, given: tuple[Any, ...], _: Any) -> PyTree:
        names = dict[str, Any]()
        for k in by_axes:  # the traces last, whose division counts
            spec = tuple(given[k].sharding.spec)
            spec += (None,) * (len(letters[k]) - len(spec))
            names |= zip(letters[k], spec, strict=True)
        names |= {"k": None, "p": None}
        sharding = lambda axes: NamedSharding(mesh, PartitionSpec(*(names[a] for a in axes)))

        def local(plan: jax.Array, gradient: jax.Array, *others: jax.Array) -> PyTree:
            if not names["b"]:
                return of_leaves(plan, gradient, *others)
            part, traces = of_leaves(plan, jnp.zeros_like(gradient), *others)
            return gradient + jax.lax.psum(part, names["b"]), traces

        made = sharding(results[0]), tuple(map(sharding, results[1:]))
        return mesh, local, made, tuple(map(sharding, letters))

    spaced = lambda several: ", ".join(" ".join(axes) for axes in several)
    call = custom_partitioning(of_leaves)
    call.def_partition(
        partition,
        sharding_rule=f"{spaced(letters)} -> {spaced(results)}",
        need_replication_factors=("p", "k"),
    )
    return call


def _by_outputs(
    kernel: Kernel, operands: PyTree, letters: PyTree, results: PyTree, mesh: AbstractMesh
) -> PyTree:
    """Inside a `jax.shard_map` that leaves some axes to XLA, where `custom_partitioning` is told no
    names: the outputs are divided along these axes, as `Shardings` divides neurons.
    """
    gradient = jax.tree.leaves(operands)[1]
    outputs = gradient.shape[results[0].index("o")]
    devices = math.prod(mesh.shape[name] for name in mesh.auto_axes)
    along = mesh.auto_axes if outputs % devices == 0 else None
    spec = lambda axes: PartitionSpec(*(along if a == "o" else None for a in axes))
    return jax.shard_map(
        kernel,
        axis_names={*mesh.auto_axes},
        in_specs=jax.tree.map(spec, letters),
        out_specs=(spec(results[0]), tuple(map(spec, results[1:]))),
        check_vma=False,
    )(*operands)
