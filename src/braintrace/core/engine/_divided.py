"""Programs of the engine where JAX's types say how arrays are divided: on a mesh with explicit axes,
and inside `jax.shard_map`.

The engine makes zeros, scans and derivatives without such types. On explicit axes a program runs
with axes that XLA divides along, and its results get the types that the analysis knows. Inside
`shard_map` it is traced as the program of one device, which it is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import PyTree

from .._compat import bind, varying_axes
from ..analysis import Axes, CellGraph, axes_of_carry, axes_of_params

Names = str | tuple[str, ...] | None  # of axes of a mesh
# from the names for samples and for neurons, the operands and the results' shapes to the results'
# specifications
Specs = Callable[[tuple[Names, Names], tuple[PyTree, ...], PyTree], PyTree]


def anywhere(graph: CellGraph, program: Callable[..., PyTree], specs: Specs) -> Callable[..., Any]:
    """`program(params, carry, ...)` wherever it is called; `specs` as above."""

    def run(params: list[jax.Array], carry: list[jax.Array], *others: PyTree) -> PyTree:
        operands = params, carry, *others
        leaves = jax.tree.leaves(operands)
        varying = frozenset[str]().union(*map(varying_axes, leaves))
        if varying:
            return _of_one_device(program, operands, tuple(sorted(varying)))
        if any(AxisType.Explicit in jax.typeof(v).sharding.mesh.axis_types for v in leaves):
            names = _names(graph, params, carry)
            shapes = jax.eval_shape(program, *jax.tree.map(_bare, operands))
            out = specs(names, operands, shapes)
            return jax.sharding.auto_axes(program, out_sharding=out)(*operands)
        return program(*operands)

    return run


def spec(names: tuple[Names, Names], axes: Axes, ndim: int) -> PartitionSpec:
    """How an array is divided whose samples and neurons lie along `axes`."""
    along = [None] * ndim
    for name, axis in zip(names, axes, strict=True):
        if axis is not None:
            along[axis] = name
    return PartitionSpec(*along)


def spec_of(value: jax.Array) -> PartitionSpec:
    """How an array is divided, by its type."""
    return jax.typeof(value).sharding.spec


def _names(
    graph: CellGraph, params: Sequence[jax.Array], carry: Sequence[jax.Array]
) -> tuple[Names, Names]:
    """The names of the mesh's axes that operands are divided along: samples and neurons."""
    pairs = [*zip(axes_of_carry(graph), carry, strict=False)]
    pairs += [*zip(axes_of_params(graph), params, strict=False)]

    def name(which: int) -> Names:
        for axes, value in pairs:
            along = spec_of(value)
            if (axis := axes[which]) is not None and axis < len(along) and along[axis]:
                return along[axis]
        return None

    return name(0), name(1)


def _bare(value: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def _of_one_device(
    program: Callable[..., PyTree], operands: tuple[PyTree, ...], varying: tuple[str, ...]
) -> PyTree:
    leaves, structure = jax.tree.flatten(operands)
    flat = jax.jit(lambda *leaves: program(*structure.unflatten(leaves)))
    traced, shapes = jax.make_jaxpr(flat, return_shape=True)(*map(_bare, leaves))
    [equation] = traced.eqns
    results = bind(equation.primitive, leaves, equation.params)
    differ = [jax.lax.pcast(v, varying, to="varying") for v in results]
    return jax.tree.structure(shapes).unflatten(differ)
