"""The gradient of a sequence with each device on its own samples, and one sum over the devices at
its end.

XLA divides a program that was written for all samples, and adds up the gradient of each window, or
of each step, over the devices. Here the cell is compiled once more for the samples of one device,
which is the same program by the proof of the batch analysis, and `jax.shard_map` runs it.
"""

import contextlib
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, PyTree

from ..cell import Cell, weights_of
from ..cell._batch import BatchSpec
from ..cell._cell import compile_cell
from ..cell._loss import apart
from ..core._compat import is_key
from ..core.analysis import BatchAxis, CellGraph, axes_of_carry, axes_of_others, stays_apart
from ..core.engine import Division, Rule
from ..core.jaxpr import Atom, Program
from ..core.traces import Draws, Zeros
from ._objective import Given, Plan, gradient
from ._state import Info


@dataclasses.dataclass(frozen=True, eq=False)
class Part:
    """A cell, the same for the samples of one of `count` devices, and its rule there; without it,
    `why_not`.
    """

    whole: Cell
    count: int
    cell: Cell | None = None
    rule: Rule | None = None
    why_not: str = ""


def part_of(cell: Cell, rule: Rule, function: Any, count: int, analysis: dict[str, Any]) -> Part:
    """The cell of `function` at the samples of one of `count` devices; `analysis` has the options
    of `compile_cell`.
    """
    graph = cell.graph
    if (why := _not_apart(cell, count) or _meets(rule, graph)) is not None:
        return Part(cell, count, why_not=why)
    of_leaves = dict(zip(cell.leaf_numbers, map(graph.batch_axis, graph.carry), strict=False))
    leaves = [(v, of_leaves.get(k)) for k, v in enumerate(cell.carry.leaves)]
    leaves += [*zip(cell.x.leaves, map(graph.batch_axis, graph.xs), strict=True)]
    shapes, own = [_cut(v, axis, count) for v, axis in leaves], len(cell.carry.leaves)
    before = cell.carry.unflatten(shapes[:own]), cell.x.unflatten(shapes[own:])
    dims = tuple(None if axis is None else axis.dim for _, axis in leaves)
    said = {**analysis, "batch": BatchSpec((graph.batch_size or 1) // count, dims)}
    made = None
    with contextlib.suppress(Exception):  # whatever a step raises that takes all samples alone
        made = compile_cell(function, cell.params.shapes, *before, rule=rule, **said)
    if made is None or made.rule is None:
        return Part(cell, count, why_not="the step does not run on the samples of one device")
    if _layout(made.rule, made.graph) != _layout(rule, graph, count):
        return Part(cell, count, why_not="the traces of fewer samples are laid out otherwise")
    return Part(cell, count, made, made.rule)


def _not_apart(cell: Cell, count: int) -> str | None:
    """Why the samples of a step are not those of several devices: of the model's own step. What a
    rule adds to it is there for each sample, unless it says otherwise.
    """
    graph = (cell.plain or cell).graph
    if graph.batch is None:
        return "the batch analysis found no samples that stay apart"
    if graph.batch.size % count:
        return f"{graph.batch.size} samples do not divide by {count}"
    if any(is_key(v.dtype) for v in (*graph.carry, *graph.xs)):
        return "the step draws random numbers for all samples at once"
    inputs = [*graph.params, *graph.carry, *graph.xs]
    program = Program(inputs, [*graph.prelude, *graph.step], [*graph.new_carry, *graph.outs])
    axes: dict[Atom, BatchAxis] = {v: a for v in inputs if (a := graph.batch_axis(v)) is not None}
    if not all(axis.is_plain for axis in axes.values()):
        return "the axis of the samples is merged with another"
    if graph.batch.meetings or stays_apart(program, axes) is None:
        return "samples meet in a step, or are not all computed in one way"
    return None


def _meets(rule: Rule, graph: CellGraph) -> str | None:
    """Why the rule does not treat the samples one by one."""
    if any(edit.meets for edit in rule.edits):
        return f"{rule.name} brings samples together"
    every = jax.tree.leaves(rule.carrier.zeros(graph), is_leaf=lambda v: isinstance(v, Draws))
    if any(v.axes.samples is None for v in every if not isinstance(v, Draws)):
        return f"samples share traces of {rule.name}"
    axes, own = axes_of_carry(graph), len(graph.carry) - len(graph.extra)
    moved = [new is not old for old, new in zip(graph.carry, graph.new_carry, strict=True)]
    if any(axes[k].samples is None and moved[k] for k in range(own, len(axes))):
        return f"samples share state of {rule.name}"
    return None


def _cut(v: jax.ShapeDtypeStruct, axis: BatchAxis | None, count: int) -> jax.ShapeDtypeStruct:
    dim = None if axis is None else axis.dim
    return jax.ShapeDtypeStruct(_cut_shape(v.shape, dim, count), v.dtype)


def _cut_shape(shape: tuple[int, ...], dim: int | None, count: int) -> tuple[int, ...]:
    return tuple(n // count if k == dim else n for k, n in enumerate(shape))


def _zeros(rule: Rule, graph: CellGraph) -> tuple[list[Zeros], Any]:
    return jax.tree.flatten(rule.zeros(graph), is_leaf=lambda v: isinstance(v, Zeros))


def _layout(rule: Rule, graph: CellGraph, count: int = 1) -> PyTree:
    """The structure of the traces, with the size and dtype of each on one of `count` devices."""
    leaves, structure = _zeros(rule, graph)
    parts = [1 if v.axes.samples is None else count for v in leaves]
    sizes = [math.prod(v.shape) // n for v, n in zip(leaves, parts, strict=True)]
    return structure, sizes, [jnp.dtype(v.dtype) for v in leaves]


def gradient_by_device(
    part: Part, rule: Rule, division: Division, plan: Plan, *operands: PyTree
) -> PyTree | None:
    """As `gradient`; None where a device cannot go on alone with its samples."""
    params, carry, traces, given = operands
    whole, local, own_rule = part.whole, part.cell, part.rule
    outside, names = jax.tree.leaves(given.outside), division.samples
    if local is None or own_rule is None or names is None or part.count == 1:
        return None
    if plan.objective.is_step or plan.fidelity or outside or own_rule.carrier.reports_steps:
        return None
    shapes = lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype)
    targets = jax.tree.map(shapes, given.sequences[1:])
    outs = whole.out.unflatten(whole.out.leaves)
    has_aux = plan.objective.has_aux
    found = apart((whole.plain or whole).graph, plan.objective.function(), outs, targets, has_aux)
    if found is None:
        return None
    loss, of_targets, of_aux, aux = found
    steps = jax.tree.leaves(given.sequences)[0].shape[0]
    mask = weights_of(given.mask, loss, steps, plan.reduction)

    def along(dim: int | None, lead: int = 0) -> Any:
        return PartitionSpec() if dim is None else PartitionSpec(*[None] * (lead + dim), names)

    of_carry = [along(axes.samples) for axes in axes_of_carry(whole.graph)][: len(carry)]
    zeros, structure = _zeros(rule, whole.graph)
    of_traces = structure.unflatten([along(v.axes.samples) for v in zeros])
    of_xs = [along(axes.samples, 1) for axes in axes_of_others(whole.graph, whole.graph.xs)]
    flat_targets = [along(dim, 1) for dim in of_targets]
    y = given.y_target
    specs = dataclasses.replace(
        given,
        sequences=(
            whole.x.unflatten(of_xs),
            *jax.tree.structure(given.sequences[1:]).unflatten(flat_targets),
        ),
        marks=None if given.marks is None else along(1),
        initial=of_carry[: len(given.initial)],
        mask=along(1),
        y_target=None if y is None else along(y.ndim - 2),
        modulator=jax.tree.map(lambda _: along(1), given.modulator),
    )
    alone = dataclasses.replace(plan, reduction="sum")

    def of_device(params: PyTree, carry: PyTree, traces: PyTree, given: Given) -> PyTree:
        if traces is not None:
            like, _ = _zeros(own_rule, local.graph)
            flat = jax.tree.leaves(traces)
            flat = [v.reshape(z.shape) for v, z in zip(flat, like, strict=True)]
            traces = structure.unflatten(flat)
        found = gradient(local, own_rule, alone, params, carry, traces, given)
        (kept, _), after, new, info, _ = found
        new = new if plan.keep_trace else None
        if new is not None:
            cut = [_cut_shape(z.shape, z.axes.samples, part.count) for z in zeros]
            flat = [v.reshape(s) for v, s in zip(jax.tree.leaves(new), cut, strict=True)]
            new = structure.unflatten(flat)
        return _summed(kept, division), after, new, info

    of_info = Info(along(0, 1), aux.unflatten([along(dim, 1) for dim in of_aux]))
    of_kept = [PartitionSpec() if wanted else None for wanted in plan.wanted]
    mesh = jax.sharding.get_abstract_mesh()
    single = {name for name, n in division.mesh.shape.items() if n == 1}
    kept, after, new, info = jax.shard_map(
        of_device,
        mesh=division.mesh if mesh.empty else mesh,
        axis_names=single | ({names} if isinstance(names, str) else {*names}),
        in_specs=(PartitionSpec(), of_carry, None if traces is None else of_traces, specs),
        out_specs=(of_kept, of_carry, of_traces if plan.keep_trace else None, of_info),
        check_vma=False,
    )(params, carry, traces, dataclasses.replace(given, mask=mask))
    return (kept, given.outside.live), after, new, info, given.outside.moving


def _summed(gradients: list[Array | None], division: Division) -> list[Array | None]:
    """The sum over the devices: one array of them all goes round, where each is whole on a
    device.
    """
    names, found = division.samples, [g for g in gradients if g is not None]
    if division.devices(division.neurons) > 1:
        total = jax.lax.psum(found, names)
    else:
        kinds = {g.dtype: [] for g in found}
        for g in found:
            kinds[g.dtype].append(g.ravel())
        sums = {k: jax.lax.psum(jnp.concatenate(v), names) for k, v in kinds.items()}
        total, start = [], dict.fromkeys(kinds, 0)
        for g in found:
            begin = start[g.dtype]
            total.append(sums[g.dtype][begin : begin + g.size].reshape(g.shape))
            start[g.dtype] = begin + g.size
    rest = iter(total)
    return [None if g is None else next(rest) for g in gradients]
