"""The batch as a fact: along which axis of each variable the samples lie, and where they meet.

One forward pass over the program. It starts from the axes of the carry and of the inputs, follows
each equation by a rule of its primitive (`_batch_rules`), and marks as a *meeting* every edge along
which one sample could influence another. What has no rule is not proven, so it is a meeting, too.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence, Set
from types import EllipsisType

from .._compat import P, is_key
from ..jaxpr import Atom, Equation, Program, Var, is_elementwise, makers, variables
from ._batch_axis import BatchAxis
from ._batch_rules import follow
from ._dependence import Dependence, Edge, reach
from ._sample import Samples

Claimed = int | EllipsisType | None
Axes = tuple[Claimed, ...]


@dataclasses.dataclass(frozen=True)
class BatchClaim:
    """What is said, or what the front end's convention is, of the batch, before anything is proven.

    `carry` and `xs` give the axis of each leaf: a number, None for a leaf that all samples share,
    or `...` for an axis that is to be found: that which the step itself gives it, else axis 0.
    """

    size: int
    carry: Axes
    xs: Axes
    said: bool  # by the user; otherwise a convention, which may be refuted

    def extended(self, leaves: int) -> "BatchClaim":
        """The claim for a carry with more leaves."""
        return dataclasses.replace(self, carry=(*self.carry, *(...,) * leaves))

    def of_leaf(self, leaf: int, shape: tuple[int, ...]) -> int | None:
        """The claimed axis of a leaf of the carry."""
        return _claimed(self.carry[leaf], shape, self.size)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Batch(Samples):
    """The samples of a program. `crossings` are edges along which a derivative passes between a
    sample and what is shared; `meetings` those of them on which one sample influences another.
    """

    size: int
    crossings: set[Edge] = dataclasses.field(default_factory=set)
    meetings: Sequence[Edge] = ()

    def of_copies(self, originals: Mapping[Equation, Equation]) -> "Batch":
        """The batch of a program made of copies of the equations."""
        axes, aligned = dict(self.axes), dict[Edge, BatchAxis]()
        for e, original in originals.items():
            for new, old in zip(e.outputs, original.outputs, strict=True):
                axes |= {new: axes[old]} if old in axes else {}
            for k in range(len(e.inputs)):
                if (original, k) in self.aligned:
                    aligned[e, k] = self.aligned[original, k]
        params = {e: self.params[old] for e, old in originals.items() if old in self.params}
        edges = [(e, k, old) for e, old in originals.items() for k in range(len(e.inputs))]
        crossings = {(e, k) for e, k, old in edges if (old, k) in self.crossings}
        changed = {"axes": axes, "aligned": aligned, "params": params, "crossings": crossings}
        return dataclasses.replace(self, **changed)


def find_batch(
    program: Program,
    carry: Sequence[Var],
    xs: Sequence[Var],
    claim: BatchClaim | None,
    dependence: Dependence,
) -> Batch | None:
    """The batch of `program`; None without a claim, or where a mere convention is refuted."""
    if claim is None or claim.size == 1:
        return None
    known = {v: _fixed(a, v, claim.size) for v, a in zip(xs, claim.xs, strict=True)}
    known |= {
        v: None if a is None else BatchAxis(a, claim.size)
        for v, a in zip(carry, claim.carry, strict=True)
        if not isinstance(a, EllipsisType)
    }
    ends = list(zip(carry, program.outputs, strict=False))
    while True:  # axes that the step gives to leaves whose axis is not known yet
        samples = _start(known, claim.size)
        for e in program.equations:
            follow(samples, e)
        found = {v: samples.axes[n] for v, n in ends if v not in known and n in samples.axes}
        if not found:
            break
        known |= found
    known |= {v: _fixed(..., v, claim.size) for v in carry if v not in known}
    tainted: set[Atom] = set()  # shared leaves that samples or parameters influence
    while True:
        batch = _start(known, claim.size)
        reached, meetings = _follow(batch, program, tainted, dependence)
        lost = {
            v: None
            for v, new in ends
            if known[v] and batch.axes.get(new) != known[v] and _counts(new, dependence)
        }
        known |= lost
        grown = tainted | {v for v, new in ends if not known[v] and new in reached}
        if not lost and grown == tainted:
            break
        tainted = grown
    after = set(variables(program.outputs[: len(carry)]))
    batch = dataclasses.replace(
        batch, meetings=tuple(m for m in meetings if reach(program.equations, m[0].outputs) & after)
    )
    if not claim.said and (not any(known[v] for v in carry) or _is_no_batch(program, batch)):
        return None
    return batch


def axes_of_results(program: Program, axes: Mapping[Atom, BatchAxis]) -> list[BatchAxis | None]:
    """Where axes of some of the inputs lie in each output, as far as that is proven."""
    samples = Samples(dict(axes))
    for e in program.equations:
        follow(samples, e)
    return [samples.axes.get(v) for v in program.outputs]


def _start(known: Mapping[Var, BatchAxis | None], size: int) -> Batch:
    return Batch({v: axis for v, axis in known.items() if axis}, size=size)


def _follow(
    batch: Batch, program: Program, tainted: Set[Atom], dependence: Dependence
) -> tuple[set[Atom], list[Edge]]:
    """Follow the axes through the program; return what samples or parameters influence beside
    samples, and where one sample might influence another.
    """
    tainted, meetings = set(tainted), []
    for e in program.equations:
        moved = follow(batch, e)
        into_samples = moved is not None and any(moved.outs)
        for k, v in enumerate(e.inputs):
            if v in dependence.prelude or not _counts(v, dependence):
                continue
            batched = v in batch.axes
            influenced = batched or v in tainted or v in dependence.params
            if influenced and not into_samples:
                tainted.update(e.outputs)
            if batched != into_samples:
                batch.crossings.add((e, k))
                meetings += [(e, k)] if influenced else []
    return tainted, meetings


def _is_no_batch(program: Program, batch: Batch) -> bool:
    """Whether what is shared differs along the axis of the batch where samples read it.

    A mean over the samples is the same for each of them. What a product brings to neurons on axis 0
    is not, and then axis 0 is none of samples.
    """
    return _differs(program, batch, batch.meetings)


def tells_apart(program: Program, samples: Samples) -> bool:
    """Whether something that is none of a sample's own differs from sample to sample: noise of all
    samples, their numbers, a weight for each.
    """
    return _differs(program, samples, samples.aligned)


def _differs(program: Program, samples: Samples, edges: Iterable[Edge]) -> bool:
    """Whether what is shared differs along the samples that read it at one of `edges`."""
    maker = makers(program.equations)

    def repeats(v: Atom, dim: int) -> bool:
        if not v.shape:
            return True
        e = maker.get(v)
        if e is None:
            return False
        if e.primitive is P.broadcast_in_dim_p:
            dims = tuple(e.params["broadcast_dimensions"])
            own = dims.index(dim) if dim in dims else None
            return own is None or e.inputs[0].shape[own] == 1 or repeats(e.inputs[0], own)
        return is_elementwise(e) and all(repeats(u, dim) for u in e.inputs)

    return any(
        not repeats(e.inputs[k], axis.dim)
        for e, k in edges
        if e.inputs[k] not in samples.axes and (axis := samples.aligned.get((e, k)))
    )


def stays_apart(program: Program, axes: Mapping[Atom, BatchAxis]) -> Samples | None:
    """Where samples, which lie along `axes` of some of the inputs, lie in every variable; None
    unless each of them is computed by itself, in the same way.
    """
    samples = Samples(dict(axes))
    for e in program.equations:
        moved = follow(samples, e)
        if any(v in samples.axes for v in e.inputs) and (moved is None or not all(moved.outs)):
            return None
    return None if tells_apart(program, samples) else samples


def _claimed(axis: Claimed, shape: tuple[int, ...], size: int) -> int | None:
    if isinstance(axis, EllipsisType):
        return 0 if shape and shape[0] == size else None
    return axis


def _fixed(axis: Claimed, v: Var, size: int) -> BatchAxis | None:
    found = _claimed(axis, v.shape, size)
    return None if found is None or is_key(v.dtype) else BatchAxis(found, size)


def _counts(atom: Atom, dependence: Dependence) -> bool:
    return isinstance(atom, Var) and atom.differentiable and dependence.relevant(atom)
