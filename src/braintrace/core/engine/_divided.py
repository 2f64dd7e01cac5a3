"""Programs of the engine on several devices: how results are divided, and what is done where JAX's
types say how arrays are.

The engine makes zeros, scans and derivatives without such types. On a mesh with explicit axes a
program runs with axes that XLA divides along, and its results get the types that the analysis
knows. Inside `jax.shard_map` it is traced as the program of one device, which it is.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from .._compat import all_varying, bind, is_differentiable, is_key, varying_axes
from ..analysis import Axes, CellGraph, axes_of_carry, axes_of_others, axes_of_params
from ..traces import Zeros
from ._rule import Rule

Names = str | tuple[str, ...] | None  # of axes of a mesh


@dataclasses.dataclass(frozen=True)
class Division:
    """The axes of a mesh that samples and neurons are divided along; None for neither."""

    mesh: Mesh | AbstractMesh
    samples: Names = None
    neurons: Names = None

    def spec(self, axes: Axes, shape: Sequence[int], lead: int = 0) -> PartitionSpec:
        """Of an array whose samples and neurons lie along `axes`, `lead` axes in front: whole along
        those that the mesh does not divide evenly.
        """
        along: list[Names] = [None] * (lead + len(shape))
        for name, axis in zip((self.samples, self.neurons), axes, strict=True):
            if name is not None and axis is not None and shape[axis] % self.devices(name) == 0:
                along[lead + axis] = name
        return PartitionSpec(*along)

    def devices(self, names: Names) -> int:
        """How many parts there are along these axes of the mesh."""
        every = () if names is None else (names,) if isinstance(names, str) else names
        return math.prod(self.mesh.shape[name] for name in every)

    def parts(self, spec: PartitionSpec) -> int:
        """How many parts an array is divided into."""
        return math.prod(map(self.devices, spec))

    def placed(self, value: jax.Array, spec: PartitionSpec) -> jax.Array:
        """`value` divided so, in a program that XLA divides."""
        if is_key(value.dtype):
            return value
        mesh = jax.sharding.get_abstract_mesh()
        own = NamedSharding(self.mesh if mesh.empty else mesh, spec)
        return jax.lax.with_sharding_constraint(value, own)

    def of_traces(self, rule: Rule, graph: CellGraph) -> PyTree:
        """Of each array of the traces."""
        of = lambda zeros: self.spec(zeros.axes, zeros.shape)
        is_zeros = lambda v: isinstance(v, Zeros)
        return jax.tree.map(of, rule.zeros(graph), is_leaf=is_zeros)

    def of_outs(self, graph: CellGraph, lead: int) -> list[PartitionSpec]:
        """Of each output of a step, or of those of several steps."""
        every = zip(axes_of_others(graph, graph.outs), graph.outs, strict=True)
        return [self.spec(axes, v.shape, lead) for axes, v in every]


# from a division, the operands and the shapes of the results to the specifications of these
Specs = Callable[[Division, tuple[PyTree, ...], PyTree], PyTree]


def anywhere(graph: CellGraph, program: Callable[..., PyTree], specs: Specs) -> Callable[..., Any]:
    """`program(params, carry, ...)` wherever it is called; `specs` says how its results are
    divided.
    """

    def run(params: list[jax.Array], carry: list[jax.Array], *others: PyTree) -> PyTree:
        operands = params, carry, *others
        leaves = jax.tree.leaves(operands)
        if any(map(varying_axes, leaves)):
            return _of_one_device(program, operands)
        if any(AxisType.Explicit in jax.typeof(v).sharding.mesh.axis_types for v in leaves):
            found = _division(graph, params, carry)
            assert isinstance(found.mesh, AbstractMesh)  # that of a type
            with jax.sharding.use_abstract_mesh(automatic(found.mesh)):
                shapes = jax.eval_shape(program, *jax.tree.map(_bare, operands))
            out = specs(found, operands, shapes)
            divided: Any = jax.sharding.auto_axes(program, out_sharding=out)
            mesh: Any = found.mesh
            with jax.sharding.use_abstract_mesh(mesh):  # also where the caller has not
                return divided(*operands)
        return program(*operands)

    return run


def step_specs(rule: Rule, graph: CellGraph, lead: int) -> Specs:
    """Of (carry, traces, outputs), or of (carry, outputs) of a program without traces; `lead` axes
    in front of the outputs.
    """

    def specs(of: Division, operands: tuple[PyTree, ...], shapes: PyTree) -> PyTree:
        outs = None if shapes[-1] is None else of.of_outs(graph, lead)
        carry = specs_of(operands[1])
        if len(shapes) == 2:
            return carry, outs
        return carry, traces_specs(of, rule, graph, operands[2]), outs

    return specs


def traces_specs(of: Division, rule: Rule, graph: CellGraph, traces: PyTree) -> PyTree:
    """Of the traces after steps: as those before them, where there are any."""
    return of.of_traces(rule, graph) if traces is None else specs_of(traces)


def specs_of(values: PyTree) -> PyTree:
    """How arrays are divided, by their types."""
    return jax.tree.map(lambda v: jax.typeof(v).sharding.spec, values)


def _division(
    graph: CellGraph, params: Sequence[jax.Array], carry: Sequence[jax.Array]
) -> Division:
    """Along which axes of their mesh operands are divided: samples and neurons."""
    pairs = [*zip(axes_of_carry(graph), carry, strict=False)]
    pairs += [*zip(axes_of_params(graph), params, strict=False)]
    found: dict[int, Names] = {}
    for axes, value in pairs:
        spec = jax.typeof(value).sharding.spec
        for which, axis in enumerate(axes):
            if axis is not None and axis < len(spec) and spec[axis] is not None:
                found.setdefault(which, spec[axis])
    meshes = (jax.typeof(v).sharding.mesh for _, v in pairs)
    mesh = next((m for m in meshes if not m.empty), jax.sharding.get_abstract_mesh())
    return Division(mesh, found.get(0), found.get(1))


def automatic(mesh: Mesh | AbstractMesh) -> AbstractMesh:
    """The mesh with axes that XLA divides along."""
    kinds = (AxisType.Auto,) * len(mesh.axis_names)
    return AbstractMesh(mesh.axis_sizes, mesh.axis_names, kinds)


def _bare(value: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(value.shape, value.dtype)


def _of_one_device(program: Callable[..., PyTree], operands: tuple[PyTree, ...]) -> PyTree:
    """The program's results, which vary as the operands do, and its derivative in reverse mode."""
    leaves, structure = jax.tree.flatten(all_varying(operands, operands))
    live = [k for k, v in enumerate(leaves) if is_differentiable(v.dtype)]
    shapes, ends = jax.tree.flatten(jax.eval_shape(program, *jax.tree.map(_bare, operands)))
    smooth_ends = [is_differentiable(v.dtype) for v in shapes]

    def of_live(values: list[jax.Array], leaves: list[jax.Array]) -> PyTree:
        """The results that have a derivative, and the others."""
        merged = dict(enumerate(leaves)) | dict(zip(live, values, strict=True))
        given = structure.unflatten([merged[k] for k in range(len(leaves))])
        pairs = [*zip(jax.tree.leaves(program(*given)), smooth_ends, strict=True)]
        return [v for v, smooth in pairs if smooth], [v for v, smooth in pairs if not smooth]

    @jax.custom_vjp
    def run(values: list[jax.Array], leaves: list[jax.Array]) -> PyTree:
        return _untyped(of_live, values, leaves)

    def forward(values: list[jax.Array], leaves: list[jax.Array]) -> PyTree:
        held = lambda values, leaves: jax.vjp(lambda v: of_live(v, leaves), values, has_aux=True)
        smooth, pull, others = _untyped(held, values, leaves)
        return (smooth, others), pull

    def backward(pull: PyTree, cotangents: PyTree) -> PyTree:
        (found,) = _untyped(lambda pull, smooth: pull(smooth), pull, cotangents[0])
        return found, [None] * len(leaves)

    run.defvjp(forward, backward)
    fixed = [jax.lax.stop_gradient(v) for v in leaves]
    smooth, others = map(iter, run([leaves[k] for k in live], fixed))
    return ends.unflatten([next(smooth if is_smooth else others) for is_smooth in smooth_ends])


def _untyped(function: Callable[..., PyTree], *operands: PyTree) -> PyTree:
    """`function(*operands)`, traced for operands of which nobody says that they vary."""
    leaves, structure = jax.tree.flatten(operands)
    flat = jax.jit(lambda *leaves: function(*structure.unflatten(leaves)))
    traced, shapes = jax.make_jaxpr(flat, return_shape=True)(*map(_bare, leaves))
    [equation] = traced.eqns
    results = bind(equation.primitive, leaves, equation.params)
    return jax.tree.structure(shapes).unflatten(all_varying(results, leaves))
