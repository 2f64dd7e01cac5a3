"""The batch as a fact: along which axis of each variable the samples lie, and where they meet.

One forward pass over the program. It starts from the axes of the carry and of the inputs, follows
each equation by a rule of its primitive (`_batch_rules`), and marks as a *meeting* every edge along
which one sample could influence another. What has no rule is not proven, so it is a meeting, too.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import EllipsisType

from .._compat import P, Params, is_key
from ..jaxpr import Atom, Equation, Program, Var, is_elementwise, makers, variables
from ._batch_axis import BatchAxis
from ._batch_rules import transfer
from ._dependence import Dependence, Edge, reach

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


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """The samples of a program: `axes` of its variables (those without one are shared).

    `aligned` gives the axis of an operand that is shared itself but read sample by sample, such as
    a bias that was broadcast. `crossings` are edges along which a derivative passes between a
    sample and what is shared; `meetings` those of them on which one sample influences another.
    """

    size: int
    axes: Mapping[Atom, BatchAxis]
    aligned: Mapping[Edge, BatchAxis]
    params: Mapping[Equation, Params]  # of the equations as one sample has them
    crossings: frozenset[Edge]
    meetings: tuple[Edge, ...]

    def operand(self, equation: Equation, k: int) -> BatchAxis | None:
        """The axis of an operand."""
        return self.axes.get(equation.inputs[k]) or self.aligned.get((equation, k))


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
    inputs = {v: _fixed(a, v, claim.size) for v, a in zip(xs, claim.xs, strict=True)}
    leaves: dict[Var, BatchAxis | None] = {
        v: BatchAxis(a, claim.size)
        for v, a in zip(carry, claim.carry, strict=True)
        if isinstance(a, int)
    }
    shared = {v for v, a in zip(carry, claim.carry, strict=True) if a is None}
    while found := _found_by_the_step(program, carry, {**inputs, **leaves}, shared, dependence):
        leaves |= found
    leaves |= {v: _fixed(..., v, claim.size) for v in carry if v not in leaves and v not in shared}
    tainted: frozenset[Var] = frozenset()  # shared leaves that samples or parameters influence
    while True:
        flow = _Flow({**inputs, **leaves}, tainted, dependence)
        flow.follow(program.equations)
        ends = list(zip(carry, program.outputs, strict=False))
        lost = [
            v
            for v, new in ends
            if leaves.get(v) and flow.axes.get(new) != leaves[v] and _counts(new, dependence)
        ]
        leaves |= dict.fromkeys(lost)
        grown = tainted | {v for v, new in ends if not leaves.get(v) and new in flow.tainted}
        if not lost and grown == tainted:
            break
        tainted = grown
    after = set(variables(program.outputs[: len(carry)]))
    meetings = [m for m in flow.meetings if reach(program.equations, m[0].outputs) & after]
    batch = flow.batch(claim.size, meetings)
    if not claim.said and (not any(leaves.values()) or _is_no_batch(program, batch)):
        return None
    return batch


def _is_no_batch(program: Program, batch: Batch) -> bool:
    """Whether what is shared differs along the axis of the batch where samples read it.

    A mean over the samples is the same for each of them. What a product brings to neurons on axis 0
    is not, and then axis 0 is none of samples.
    """
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
        for e, k in batch.meetings
        if e.inputs[k] not in batch.axes and (axis := batch.aligned.get((e, k)))
    )


def _claimed(axis: Claimed, shape: tuple[int, ...], size: int) -> int | None:
    if isinstance(axis, EllipsisType):
        return 0 if shape and shape[0] == size else None
    return axis


def _fixed(axis: Claimed, v: Var, size: int) -> BatchAxis | None:
    found = _claimed(axis, v.shape, size)
    return None if found is None or is_key(v.dtype) else BatchAxis(found, size)


def _counts(atom: Atom, dependence: Dependence) -> bool:
    return isinstance(atom, Var) and atom.differentiable and dependence.relevant(atom)


def _found_by_the_step(
    program: Program,
    carry: Sequence[Var],
    axes: Mapping[Var, BatchAxis | None],
    shared: set[Var],
    dependence: Dependence,
) -> dict[Var, BatchAxis | None]:
    """Axes that the step gives to leaves whose axis is not known yet."""
    flow = _Flow(axes, frozenset(), dependence)
    flow.follow(program.equations)
    return {
        v: flow.axes[new]
        for v, new in zip(carry, program.outputs, strict=False)
        if v not in axes and v not in shared and new in flow.axes
    }


class _Flow:
    """One pass: what is known of each variable and edge so far."""

    def __init__(
        self, start: Mapping[Var, BatchAxis | None], tainted: frozenset[Var], dependence: Dependence
    ):
        self.axes: dict[Atom, BatchAxis] = {v: a for v, a in start.items() if a}
        self.tainted: set[Atom] = set(tainted)
        self.dependence = dependence
        self.aligned: dict[Edge, BatchAxis] = {}
        self.params: dict[Equation, Params] = {}
        self.crossings: set[Edge] = set()
        self.meetings: list[Edge] = []

    def batch(self, size: int, meetings: Sequence[Edge]) -> Batch:
        crossings = frozenset(self.crossings)
        return Batch(size, self.axes, self.aligned, self.params, crossings, tuple(meetings))

    def follow(self, equations: Sequence[Equation]) -> None:
        for e in equations:
            operands = [self.axes.get(v) for v in e.inputs]
            moved = transfer(e, operands) if any(operands) else None
            if moved is not None:
                self.axes.update((v, a) for v, a in zip(e.outputs, moved.outs, strict=True) if a)
                self.aligned.update(((e, k), a) for k, a in moved.aligned.items())
                self.params[e] = moved.params
            for k, v in enumerate(e.inputs):
                if _counts(v, self.dependence):
                    self.pass_on(e, k, bool(operands[k]), moved is not None and any(moved.outs))

    def pass_on(self, e: Equation, k: int, batched: bool, into_samples: bool) -> None:
        """What the derivative along an edge does to the samples."""
        v = e.inputs[k]
        if v in self.dependence.prelude:
            return
        tainted = batched or v in self.tainted or v in self.dependence.params
        if tainted and not into_samples:
            self.tainted.update(e.outputs)
        if batched != into_samples:
            self.crossings.add((e, k))
            if tainted:
                self.meetings.append((e, k))
