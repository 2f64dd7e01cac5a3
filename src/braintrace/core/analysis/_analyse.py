"""From a staged program to its `CellGraph`."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from .._compat import P
from ..jaxpr import Atom, Equation, Program, Var
from ._batch import BatchClaim, find_batch
from ._blocks import blocks_of, elements_of, pieces
from ._certificate import certified
from ._dependence import dependence, live, reach
from ._find_sites import Region
from ._graph import CellGraph, Exactness, ExtraLeaf, ParameterRow
from ._groups import Block, layout
from ._labels import Known, Labels
from ._positions import Positions
from ._untraced import untraced_values, without_idle_marks


@dataclasses.dataclass(frozen=True)
class Signature:
    """How the inputs and outputs of a cell's program are divided, with the names of its leaves."""

    params: tuple[str, ...]
    carry: tuple[str, ...]
    claim: BatchClaim | None = None
    extra: tuple[ExtraLeaf, ...] = ()
    marks: Mapping[str, frozenset[int]] = dataclasses.field(default_factory=dict)
    frozen: frozenset[int] = frozenset()  # parameters that are not trained
    multi_step: bool = False  # whether windows read traces at their entry through every path

    def split(self, inputs: Sequence[Var]) -> tuple[list[Var], list[Var], list[Var]]:
        p, c = len(self.params), len(self.carry)
        return list(inputs[:p]), list(inputs[p : p + c]), list(inputs[p + c :])

    @property
    def inert(self) -> set[int]:
        """Leaves of the carry without a derivative."""
        first = len(self.carry) - len(self.extra)
        return {first + k for k, leaf in enumerate(self.extra) if leaf.inert}


def analyse(program: Program, signature: Signature, max_slots: int = 16) -> CellGraph:
    """Analyse a cell: a program `(params, carry, x) -> (carry, out)`, all flat."""
    program = live(without_idle_marks(live(program), len(signature.carry)))
    params, carry, xs = signature.split(program.inputs)
    old = {k: v for k, v in enumerate(carry) if v.differentiable and k not in signature.inert}
    cut: set[int] = set()  # leaves that are cut into equal blocks
    while True:
        handing = _handing_on(program, old, {*params, *old.values()})
        deps = dependence(handing.equations, params, list(old.values()))
        batch = find_batch(handing, carry, xs, signature.claim, deps)
        known = Known(handing, old, deps, batch)
        blocks = blocks_of(known, cut)
        labels = _settle(known, blocks, max_slots)
        group = labels.positions.group
        delays = {blocks[b].leaf for b in labels.shifted if group.count(group[b]) > 1}
        clashing = {blocks[b].leaf for b in labels.clashing} - cut
        if fused := {k for k in clashing if pieces(known, k)}:
            cut |= fused
        elif delays & set(old):
            old = {k: v for k, v in old.items() if k not in delays}
        else:
            return _assemble(known, labels, blocks, signature)


def _handing_on(program: Program, hidden: Iterable[int], moving: Collection[Atom]) -> Program:
    """The program with an equation for each leaf that is handed on as it is, so that the hand-over
    can be an edge.
    """
    outputs, copies = list(program.outputs), []
    for k in hidden:
        if isinstance(v := outputs[k], Var) and v in moving and v.differentiable:
            copies.append(Equation(P.copy_p, [v], [Var(v.shape, v.dtype)], {}))
            outputs[k] = copies[-1].outputs[0]
    return Program(program.inputs, program.equations + copies, outputs)


def _settle(known: Known, blocks: list[Block], max_slots: int) -> Labels:
    """Label until no positions are joined any more: a join found late may admit an edge that was
    met early. Groups that are not sound at the end are labelled again, strictly.
    """
    elements = elements_of(blocks)
    strict: set[int] = set()
    while True:
        positions = Positions([b.numbers for b in blocks], max_slots, strict)
        labels = Labels(known, elements, positions)
        while positions.joined():
            labels = Labels(known, elements, positions)
        if not (unsound := positions.unsound()):
            return labels
        strict |= unsound


def _assemble(known: Known, labels: Labels, blocks: list[Block], signature: Signature) -> CellGraph:
    batch = known.batch and known.batch.of_copies(labels.copied)
    program = live(Program(known.program.inputs, labels.equations, labels.outputs))
    params, carry, xs = signature.split(program.inputs)
    equations, outputs = program.equations, program.outputs
    deps = dependence(equations, params, list(known.old.values()))
    kept = set(equations)
    mixing = {edge for edge in labels.mixing if edge[0] in kept}
    prelude = [e for e in equations if all(v in deps.prelude for v in e.outputs)]
    step = [e for e in equations if not all(v in deps.prelude for v in e.outputs)]
    read = {v for e in step for v in e.inputs} | set(outputs)
    results = [v for v in [*params, *(o for e in prelude for o in e.outputs)] if v in read]
    kinds = (
        Exactness.FROZEN if k in signature.frozen else Exactness.UNUSED for k in range(len(params))
    )
    rows = [
        ParameterRow(name, v.shape, kind, (), "not trained", ())
        for name, v, kind in zip(signature.params, params, kinds, strict=True)
    ]
    graph = CellGraph(
        program=program,
        params=params,
        carry=carry,
        xs=xs,
        prelude=prelude,
        step=step,
        new_carry=outputs[: len(carry)],
        outs=outputs[len(carry) :],
        prelude_results=results,
        labels=labels.of,
        mixing=frozenset(),
        old=deps.old,
        after=frozenset(),
        groups=(),
        sites=(),
        hidden=tuple(known.old),
        parameters=tuple(rows),
        leaf_paths=signature.carry,
        claim=signature.claim,
        batch=batch,
        extra=signature.extra,
        marks=signature.marks,
    )
    arranged = layout(blocks, labels.positions, graph, mixing, signature.multi_step)
    region = Region(graph, deps, labels.operand, arranged, mixing, untraced_values(graph))
    region.find()
    graph = dataclasses.replace(
        graph,
        mixing=frozenset(mixing),
        after=frozenset(reach(equations, region.entries)),
        groups=arranged.groups,
        placed=arranged.blocks,
        sites=tuple(region.sites),
    )
    return certified(graph, graph.mixing, region.unsited)
