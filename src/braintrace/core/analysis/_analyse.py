"""From a staged program to its `CellGraph`."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from .._compat import P
from ..jaxpr import Equation, Program, Var, is_elementwise
from ..sites import OperandRule, ScaleRule, SiteRule, chain_rule, site_rule
from ._certificate import Paths, certify
from ._dependence import Dependence, Edge, dependence, live, reach
from ._graph import CellGraph, ExtraLeaf, Site
from ._groups import Block, Layout, layout
from ._influence import influences
from ._labels import Labels, label
from ._positions import Positions
from ._untraced import untraced_values, without_idle_marks


@dataclasses.dataclass(frozen=True)
class Signature:
    """How the inputs and outputs of a cell's program are divided, with the names of its leaves."""

    params: tuple[str, ...]
    carry: tuple[str, ...]
    lanes: int | None = None
    resets: bool = False
    extra: tuple[ExtraLeaf, ...] = ()
    marks: Mapping[str, frozenset[int]] = dataclasses.field(default_factory=dict)
    frozen: frozenset[int] = frozenset()  # parameters that are not trained

    def split(self, inputs: Sequence[Var]) -> tuple[list[Var], list[Var], list[Var]]:
        p, c = len(self.params), len(self.carry)
        return list(inputs[:p]), list(inputs[p : p + c]), list(inputs[p + c :])


def analyse(program: Program, signature: Signature, max_slots: int = 16) -> CellGraph:
    """Analyse a cell: a program `(params, carry, x) -> (carry, out)`, all flat."""
    program = live(without_idle_marks(live(program), len(signature.carry)))
    params, carry, xs = signature.split(program.inputs)
    first = len(carry) - len(signature.extra)
    inert = {first + k for k, leaf in enumerate(signature.extra) if leaf.inert}
    hidden = [k for k, v in enumerate(carry) if v.differentiable and k not in inert]
    cut: set[int] = set()  # leaves that are cut into equal blocks
    while True:
        deps = dependence(program.equations, params, [carry[k] for k in hidden])
        blocks = _blocks(carry, hidden, program, cut)
        labels, positions = _settle(program, carry, blocks, deps, max_slots)
        delays = {
            blocks[b].leaf
            for b in labels.shifted
            if (positions.group == positions.group[b]).sum() > 1
        }
        fused = {k for k in {blocks[b].leaf for b in labels.clashing} - cut if _pieces(program, k)}
        if fused:
            cut |= fused
        elif delays & set(hidden):
            hidden = [k for k in hidden if k not in delays]
        else:
            break
    return _assemble(
        program, labels, positions, blocks, hidden, inert, (params, carry, xs), signature
    )


def _blocks(
    carry: Sequence[Var], hidden: Sequence[int], program: Program, cut: set[int]
) -> list[Block]:
    blocks, start = [], 0
    for k in hidden:
        whole = [(np.arange(carry[k].size), carry[k].shape)]
        for elements, shape in (_pieces(program, k) or whole) if k in cut else whole:
            blocks.append(Block(k, elements, shape, start))
            start += elements.size
    return blocks


def _pieces(program: Program, leaf: int) -> list[tuple[np.ndarray, tuple[int, ...]]]:
    """The equal pieces that the new value of a leaf is put together from, as element numbers; none
    if it is not.

    Equations that only move the whole value (a reshape, a scatter that overwrites all) are looked
    through.
    """
    makers = {v: e for e in program.equations for v in e.outputs}
    out = program.outputs[leaf]
    numbers = (
        np.arange(out.size) if isinstance(out, Var) else np.arange(0)
    )  # of the leaf, for each element of `out`
    while (
        isinstance(out, Var)
        and (maker := makers.get(out)) is not None
        and not is_elementwise(maker)
    ):
        found = influences(maker)
        acting = [k for k, influence in enumerate(found) if influence is None or influence]
        if any(found[k] is None or len(found[k] or ()) != 1 for k in acting):
            return []
        pieces = []
        for k in acting:
            source, target = found[k][0].pairs(int(np.prod(maker.inputs[k].shape)))  # type: ignore[index]
            pieces.append((numbers[target[np.argsort(source)]], maker.inputs[k].shape))
        complete = np.sort(np.concatenate([p for p, _ in pieces])) if pieces else np.arange(0)
        if complete.size != out.size or (complete != np.arange(out.size)).any():
            return []
        if len(pieces) > 1:
            return pieces if len({shape for _, shape in pieces}) == 1 else []
        [(numbers, _)], out = pieces, maker.inputs[acting[0]]
    return []


def _settle(
    program: Program, carry: Sequence[Var], blocks: list[Block], deps: Dependence, max_slots: int
) -> tuple[Labels, Positions]:
    """Label until the positions stay as they are: a join found late may admit an edge that was met
    early.
    """
    owner = (
        np.concatenate([np.full(b.elements.size, k) for k, b in enumerate(blocks)])
        if blocks
        else np.zeros(0, int)
    )
    positions = Positions(owner, max_slots)
    leaves: dict[int, np.ndarray] = {}
    for b in blocks:
        leaves.setdefault(b.leaf, np.zeros(carry[b.leaf].size, int))[b.elements] = (
            b.start + np.arange(b.elements.size)
        )
    hidden = [(k, carry[k], elements) for k, elements in leaves.items()]
    while True:
        before = positions.position
        labels = label(program, hidden, positions, deps)
        if (positions.position == before).all():
            return labels, positions


def _assemble(
    program: Program,
    labels: Labels,
    positions: Positions,
    blocks: list[Block],
    hidden: list[int],
    inert: set[int],
    inputs: tuple[list[Var], list[Var], list[Var]],
    signature: Signature,
) -> CellGraph:
    params, carry, xs = inputs
    program = live(Program(program.inputs, labels.equations, labels.outputs))
    equations, outputs = program.equations, program.outputs
    deps = dependence(equations, params, [carry[k] for k in hidden])
    in_program = set(equations)
    mixing = {(e, k) for e, k in labels.mixing if e in in_program}
    old = {k: carry[k] for k in hidden}
    new = {k: v for k in hidden if isinstance(v := outputs[k], Var)}
    outs = {v for v in outputs if isinstance(v, Var)}
    arranged = layout(blocks, positions, equations, mixing, old, new, outs)
    crossed = {(e, k) for e, k in mixing if e.inputs[k] not in deps.prelude}
    positional = reach(equations, [*old.values(), *params], crossed)
    sites, entries, unsited = [], set(), set()
    untraced = untraced_values(equations, deps.prelude, params, signature.params)
    for e in equations:
        region = any(v in labels.of for v in e.outputs)
        if not region:
            sites += _chained(e, equations, outputs, labels, deps, arranged, new, mixing, untraced)
            continue
        if any((e, k) in mixing for k in range(len(e.inputs))):
            entries.update(e.outputs)
        for k, v in enumerate(e.inputs):
            if not isinstance(v, Var) or v not in deps.prelude or not deps.of(v):
                continue
            rule, operation, elements = _rule(e, k, labels, deps, positional)
            if v in untraced:
                entries.update(e.outputs if operation else ())
                rule = None
            if rule is None or elements is None:
                unsited.add((e, k))
                mixing.discard((e, k))
                continue
            mixing.discard((e, k))
            if operation:
                entries.update(e.outputs)
            y = e.outputs[0] if operation else v
            influenced = reach(equations, [y] if operation else e.outputs, mixing)
            places = arranged.places(elements, y.shape, influenced, new)
            sites.append(Site((e, k), rule, v, deps.of(v), places, operation))
    carried = {
        v: signature.carry[k]
        for k, v in enumerate(outputs[: len(carry)])
        if isinstance(v, Var)
        and v.differentiable
        and k not in (*hidden, *inert)
        and _is_read(carry[k], equations, outputs)
    }
    paths = Paths(equations, mixing, unsited, old, new, carried)
    rows = certify(signature.params, params, sites, arranged.groups, paths, signature.frozen)
    prelude = [e for e in equations if all(v in deps.prelude for v in e.outputs)]
    step = [e for e in equations if not all(v in deps.prelude for v in e.outputs)]
    read = {v for e in step for v in e.inputs} | set(outputs)
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
        labels=labels.of,
        mixing=frozenset(mixing),
        old=frozenset(deps.old),
        after=frozenset(reach(equations, entries)),
        hidden=tuple(hidden),
        groups=arranged.groups,
        sites=tuple(sites),
        parameters=rows,
        leaf_paths=signature.carry,
        lanes=signature.lanes,
        resets=signature.resets,
        extra=signature.extra,
        marks=signature.marks,
    )


def _rule(
    equation: Equation, operand: int, labels: Labels, deps: Dependence, positional: set[Var]
) -> tuple[SiteRule | None, bool, np.ndarray | None]:
    """The rule of a parameter operand, whether it is a weight operation, and the labels of its y."""
    if (rule := site_rule(equation, operand)) is not None:
        if any(isinstance(v, Var) and v not in deps.prelude for v in rule.structure):
            return None, True, None
        return rule, True, labels.of.get(equation.outputs[0])
    other = equation.inputs[1 - operand] if equation.primitive is P.mul_p else None
    if isinstance(other, Var) and other not in positional and other not in deps.prelude:
        # data: what it has of the state has been mixed
        return ScaleRule(equation, operand), True, labels.of.get(equation.outputs[0])
    return OperandRule(equation, operand), False, labels.operand.get((equation, operand))


def _chained(
    equation: Equation,
    equations: Sequence[Equation],
    outputs: Sequence[object],
    labels: Labels,
    deps: Dependence,
    arranged: Layout,
    new: dict[int, Var],
    mixing: set[Edge],
    untraced: Collection[Var],
) -> list[Site]:
    """The site of a weight whose result reaches a region through linear operations alone, if
    `equation` has one.
    """
    chain: list[Equation] = []
    if (
        len(equation.outputs) != 1
        or any(v in deps.prelude for v in equation.outputs)
        or not any(deps.of(v) for v in equation.inputs if v in deps.prelude)
    ):
        return []
    while (end := (chain[-1] if chain else equation).outputs[0]) not in labels.of:
        readers = [e for e in equations for v in e.inputs if v is end]
        if len(readers) != 1 or end in outputs or len(readers[0].outputs) != 1:
            return []
        chain += readers
    sites = []
    for k, v in enumerate(equation.inputs):
        if not isinstance(v, Var) or v not in deps.prelude or not deps.of(v) or v in untraced:
            continue
        first = site_rule(equation, k)
        rule = None if first is None else chain_rule(first, chain, deps.prelude)
        if rule is not None:
            places = arranged.places(
                labels.of[end], end.shape, reach(equations, [end], mixing), new
            )
            sites.append(Site((equation, k), rule, v, deps.of(v), places, True, tuple(chain)))
    return sites


def _is_read(variable: Var, equations: Sequence[Equation], outputs: Sequence[object]) -> bool:
    return variable in outputs or any(variable in e.inputs for e in equations)
