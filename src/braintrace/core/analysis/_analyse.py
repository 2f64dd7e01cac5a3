"""From a staged program to its `CellGraph`."""

import dataclasses
from collections.abc import Mapping, Sequence

from ..jaxpr import Program, Var, variables
from ._batch import BatchClaim, find_batch
from ._blocks import blocks_of, elements_of, pieces
from ._certificate import Paths, certify
from ._dependence import dependence, live, reach
from ._find_sites import Region
from ._graph import CellGraph, ExtraLeaf
from ._groups import Block, Ends, layout
from ._labels import Labels, label
from ._positions import Positions
from ._sample import SampleProgram, expanded, of_one_sample
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

    def split(self, inputs: Sequence[Var]) -> tuple[list[Var], list[Var], list[Var]]:
        p, c = len(self.params), len(self.carry)
        return list(inputs[:p]), list(inputs[p : p + c]), list(inputs[p + c :])

    @property
    def inert(self) -> set[int]:
        """Leaves of the carry without a derivative."""
        first = len(self.carry) - len(self.extra)
        return {first + k for k, leaf in enumerate(self.extra) if leaf.inert}


@dataclasses.dataclass(frozen=True)
class _Settled:
    """One sample's program, labelled."""

    sample: SampleProgram
    labels: Labels
    positions: Positions
    blocks: list[Block]
    hidden: list[int]


def analyse(program: Program, signature: Signature, max_slots: int = 16) -> CellGraph:
    """Analyse a cell: a program `(params, carry, x) -> (carry, out)`, all flat."""
    program = live(without_idle_marks(live(program), len(signature.carry)))
    params, carry, xs = signature.split(program.inputs)
    hidden = [k for k, v in enumerate(carry) if v.differentiable and k not in signature.inert]
    cut: set[int] = set()  # leaves that are cut into equal blocks
    while True:
        deps = dependence(program.equations, params, [carry[k] for k in hidden])
        batch = find_batch(program, carry, xs, signature.claim, deps)
        sample = of_one_sample(program, batch, deps)
        settled = _settle(sample, signature, hidden, cut, max_slots)
        labels, blocks, group = settled.labels, settled.blocks, settled.positions.group
        delays = {blocks[b].leaf for b in labels.shifted if group.count(group[b]) > 1}
        clashing = {blocks[b].leaf for b in labels.clashing} - cut
        if fused := {k for k in clashing if pieces(sample.program, k)}:
            cut |= fused
        elif delays & set(hidden):
            hidden = [k for k in hidden if k not in delays]
        else:
            return _assemble(settled, signature)


def _settle(
    sample: SampleProgram, signature: Signature, hidden: list[int], cut: set[int], max_slots: int
) -> _Settled:
    """Label until no positions are joined any more: a join found late may admit an edge that was
    met early. Groups that are not sound at the end are labelled again, strictly.
    """
    _, carry, _ = signature.split(sample.program.inputs)
    blocks = blocks_of(sample.program, carry, hidden, cut)
    leaves = [(k, carry[k], v) for k, v in elements_of(blocks, carry).items()]
    strict: set[int] = set()
    while True:
        positions = Positions([b.size for b in blocks], max_slots, strict)
        labels = label(sample, leaves, positions)
        while positions.joined():
            labels = label(sample, leaves, positions)
        if not (unsound := positions.unsound()):
            return _Settled(sample, labels, positions, blocks, hidden)
        strict |= unsound


def _assemble(settled: _Settled, signature: Signature) -> CellGraph:
    labels, hidden = settled.labels, settled.hidden
    every = expanded(settled.sample, labels.equations, labels.outputs, labels.copied)
    program, of, batch = live(every.program), every.variable, every.batch
    params, carry, xs = signature.split(program.inputs)
    equations, outputs = program.equations, program.outputs
    deps = dependence(equations, params, [carry[k] for k in hidden])
    kept = set(equations)
    edge = {e: every.equation[e] for e in labels.equations if every.equation[e] in kept}
    mixing = {(edge[e], k) for e, k in labels.mixing if e in edge}
    whole = lambda v: found if isinstance(found := of.get(v), Var) else v
    of_full = {whole(v): elements for v, elements in labels.of.items()}
    operand = {(edge[e], k): v for (e, k), v in labels.operand.items() if e in edge}
    old = {k: carry[k] for k in hidden}
    new = {k: v for k in hidden if isinstance(v := outputs[k], Var)}
    outs = set(variables(outputs))
    arranged = layout(settled.blocks, settled.positions, equations, mixing, Ends(old, new, outs))
    crossed = {(e, k) for e, k in mixing if e.inputs[k] not in deps.prelude}
    positional = reach(equations, [*old.values(), *params], crossed)
    untraced = untraced_values(equations, deps.prelude, params, signature.params)
    region = Region(equations, outputs, of_full, operand, deps, arranged, batch, new, untraced)
    sites = region.find(mixing, positional)
    prelude = [e for e in equations if all(v in deps.prelude for v in e.outputs)]
    step = [e for e in equations if not all(v in deps.prelude for v in e.outputs)]
    read = {v for e in step for v in e.inputs} | set(outputs)
    carried = {
        v: signature.carry[k]
        for k, v in enumerate(outputs[: len(carry)])
        if isinstance(v, Var)
        and v.differentiable
        and k not in (*hidden, *signature.inert)
        and carry[k] in read
    }
    paths = Paths(equations, sites.mixing, sites.unsited, old, new, carried, outputs)
    rows = certify(signature.params, params, sites.sites, arranged.groups, paths, signature.frozen)
    results = [v for v in [*params, *(o for e in prelude for o in e.outputs)] if v in read]
    return CellGraph(
        program=program,
        params=params,
        carry=carry,
        xs=xs,
        prelude=prelude,
        step=step,
        new_carry=outputs[: len(carry)],
        outs=outputs[len(carry) :],
        prelude_results=results,
        labels=of_full,
        mixing=frozenset(sites.mixing),
        old=frozenset(deps.old),
        after=frozenset(reach(equations, sites.entries)),
        hidden=tuple(hidden),
        groups=arranged.groups,
        sites=tuple(sites.sites),
        parameters=rows,
        leaf_paths=signature.carry,
        claim=signature.claim,
        batch=batch,
        extra=signature.extra,
        marks=signature.marks,
    )
