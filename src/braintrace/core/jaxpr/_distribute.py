"""A scan as loops over what feeds back and maps over all the rest: loop distribution.

A step's equations are in a loop when a later step needs their result to make it again: a membrane
and its leak, a product with recurrent weights. All others, products with inputs and with the
activity of a layer below among them, are done for all steps at once. Loops and maps alternate as
the equations depend on each other.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._compat import sub_jaxprs
from ._cost import is_cheap
from ._program import Atom, Const, Equation, Var, evaluate, reader
from ._stage import inline


class Loop:
    """The equations of a step from old carry and slices to new carry and outputs; other variables
    are the same at all steps.
    """

    def __init__(
        self,
        equations: Sequence[Equation],
        old: Sequence[Var],
        slices: Sequence[Var],
        new: Sequence[Atom],
        outputs: Sequence[Atom],
    ):
        self.old, self.slices, self.new, self.outputs = old, slices, new, outputs
        self.kept = {
            v for v, n in zip(old, new, strict=True) if n is v
        }  # leaves that stay as they are
        changing = {*slices, *(v for v in old if v not in self.kept)}
        self.fixed: list[Equation] = []
        moving: list[Equation] = []
        for e in needed(equations, [*new, *outputs]):
            changes = any(v in changing for v in e.inputs)
            (moving if changes else self.fixed).append(e)
            changing.update(e.outputs if changes else ())
        self.schedule = _Schedule(self, moving)

    @property
    def feeds_back_at_a_cost(self) -> bool:
        """Whether a product, or another costly equation, is in a loop."""
        return any(not is_cheap(e) for e in self.schedule.cycle_of)


class DistributedScan(Loop):
    """`lax.scan(function, carry, at)` with shapes like those of `carry` and `at`."""

    def __init__(self, function: Callable[[Any, Any], tuple[Any, Any]], carry: Any, at: Any):
        slices = jax.tree.map(lambda v: jax.ShapeDtypeStruct(v.shape[1:], v.dtype), at)
        closed, (_, self.result) = jax.make_jaxpr(function, return_shape=True)(carry, slices)
        program, count = inline(closed), len(jax.tree.leaves(carry))
        self.equations = program.equations
        super().__init__(
            program.equations,
            program.inputs[:count],
            program.inputs[count:],
            program.outputs[:count],
            program.outputs[count:],
        )

    @property
    def can_be_mapped(self) -> bool:
        """Whether mapping over steps changes nothing: no effects, and no random numbers that depend
        on how they are drawn.
        """
        return not any(_is_peculiar(e) for e in self.equations)

    def __call__(self, carry: Any, at: Any) -> tuple[Any, Any]:
        leaves = jax.tree.leaves(at)
        last, stacked = _Run(self, jax.tree.leaves(carry), leaves, leaves[0].shape[0])()
        return jax.tree.unflatten(jax.tree.structure(carry), last), jax.tree.unflatten(
            jax.tree.structure(self.result), stacked
        )


def _is_peculiar(equation: Any) -> bool:
    name = equation.primitive.name
    inner = (e for program in sub_jaxprs(equation.params) for e in program.jaxpr.eqns)
    return "callback" in name or name.startswith("rng_") or any(map(_is_peculiar, inner))


class _Run:
    """One evaluation: `fixed` holds what is the same at all steps, `timed` what is stacked over
    them.
    """

    def __init__(self, scan: DistributedScan, carry: list[Any], at: list[Any], steps: int):
        self.scan, self.carry, self.steps = scan, carry, steps
        self.fixed = {v: c for v, c in zip(scan.old, carry, strict=True) if v in scan.kept}
        self.timed = dict(zip(scan.slices, at, strict=True))
        self.last: dict[int, Any] = {}

    def __call__(self) -> tuple[list[Any], list[Any]]:
        scan = self.scan
        evaluate(scan.fixed, self.fixed)
        stages = scan.schedule.stages()
        for number, (equations, leaves) in enumerate(stages):
            later = {v for others, _ in stages[number + 1 :] for e in others for v in e.inputs}
            self.run(equations, leaves, later | set(scan.outputs))
        self.shift()
        ends = enumerate(zip(scan.new, self.carry, strict=True))
        last = [self.last[k] if k in self.last else self.at_end(v, c.dtype) for k, (v, c) in ends]
        results = zip(scan.outputs, jax.tree.leaves(scan.result), strict=True)
        return last, [self.stacked(v, r.dtype) for v, r in results]

    def run(self, equations: list[Equation], leaves: list[int], wanted: set[Any]) -> None:
        """A map, or the loop that carries `leaves`; keeps what is in `wanted`, and the new values
        of other leaves.
        """
        self.shift()
        old, new = ([of[k] for k in leaves] for of in (self.scan.old, self.scan.new))
        made = [*old, *(v for e in equations for v in e.outputs)]
        read = list(dict.fromkeys(v for e in equations for v in e.inputs if v in self.timed))
        wanted = wanted | {v for k, v in enumerate(self.scan.new) if k not in leaves}
        kept = [v for v in made if v in wanted]

        def one(carry: Sequence[Any], values: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            env = {
                **self.fixed,
                **dict(zip(read, values, strict=True)),
                **dict(zip(old, carry, strict=True)),
            }
            evaluate(equations, env)
            get = reader(env)
            return [get(v) for v in new], [env[v] for v in kept]

        values = [self.timed[v] for v in read]
        if leaves:
            last, results = jax.lax.scan(
                one, [self.carry[k] for k in leaves], values, length=self.steps
            )
            self.last.update(zip(leaves, last, strict=True))
        else:
            results = jax.vmap(lambda *v: one([], v)[1])(*values)
        self.timed.update(zip(kept, results, strict=True))

    def shift(self) -> None:
        """The old values of leaves that are in no loop: their new values, one step later."""
        for v, new, first in zip(self.scan.old, self.scan.new, self.carry, strict=True):
            if v not in self.timed and v not in self.fixed and self.is_known(new):
                self.timed[v] = jnp.concatenate([first[None], self.stacked(new, first.dtype)[:-1]])

    def is_known(self, atom: Atom) -> bool:
        return isinstance(atom, Const) or atom in self.timed or atom in self.fixed

    def stacked(self, atom: Atom, dtype: Any) -> Any:
        if atom in self.timed:
            return self.timed[atom]  # type: ignore[index]
        value = self.constant(atom, dtype)
        return jnp.broadcast_to(value, (self.steps, *value.shape))

    def at_end(self, atom: Atom, dtype: Any) -> Any:
        return self.timed[atom][-1] if atom in self.timed else self.constant(atom, dtype)  # type: ignore[index]

    def constant(self, atom: Atom, dtype: Any) -> Any:
        return jnp.asarray(atom.value, dtype) if isinstance(atom, Const) else self.fixed[atom]


def needed(equations: Sequence[Equation], outputs: Sequence[Atom]) -> list[Equation]:
    """The equations that the outputs need, in order."""
    wanted, found = set(outputs), []
    for e in reversed(equations):
        if any(v in wanted for v in e.outputs):
            wanted.update(e.inputs)
            found.append(e)
    return found[::-1]


class _Schedule:
    """Which equations are done when: a map at even times, a loop at odd ones.

    A loop takes cheap equations along, so that loops are parted by products only. A cheap equation
    is mapped where no loop needs it, and done inside the only loop that does.
    """

    def __init__(self, scan: Loop, equations: list[Equation]):
        self.scan, self.equations = scan, equations
        self.maker = {v: e for e in equations for v in e.outputs}
        self.number = {v: k for k, v in enumerate(scan.old)}
        self.cycle_of_leaf, self.cycle_of = self._cycles()
        self.time: dict[Any, int] = {
            c: 1 for c in self.cycle_of_leaf if c is not None
        }  # of cycles and of equations
        while self._moved():
            pass
        self._settle()

    def stages(self) -> list[tuple[list[Equation], list[int]]]:
        """Equations, and the leaves that a loop carries (none for a map)."""
        at: dict[int, tuple[list[Equation], list[int]]] = {}
        for e in self.equations:
            at.setdefault(self.time[e], ([], []))[0].append(e)
        for k, cycle in enumerate(self.cycle_of_leaf):
            if cycle is not None:
                at[self.time[cycle]][1].append(k)
        return [at[t] for t in sorted(at)]

    def _cycles(self) -> tuple[list[int | None], dict[Equation, int]]:
        """For each leaf of the carry and each equation, the first leaf of the cycle that it is
        in.
        """
        count = len(self.scan.old)
        feeds = {
            v: frozenset([k]) for v, k in self.number.items() if v not in self.scan.kept
        }  # leaves that reach a variable
        for e in self.equations:
            reached = frozenset().union(*(feeds.get(v, frozenset()) for v in e.inputs))  # type: ignore[arg-type]
            feeds.update((v, reached) for v in e.outputs)
        power = np.zeros(
            (count, count), bool
        )  # [k, j]: whether leaf k reaches a later value of leaf j
        for j, v in enumerate(self.scan.new):
            for k in feeds.get(v, ()):  # type: ignore[arg-type]
                power[k, j] = True
        for via in range(count):
            power |= power[:, via : via + 1] & power[via]
        both = power & power.T
        of_leaf = [int(np.flatnonzero(both[k])[0]) if both[k].any() else None for k in range(count)]
        of_equation: dict[Equation, int] = {}
        reaches: dict[Any, set[int]] = {}  # the leaves whose next value a variable reaches
        for j, v in enumerate(self.scan.new):
            reaches.setdefault(v, set()).add(j)
        for e in reversed(self.equations):
            ahead = set().union(*(reaches.get(v, set()) for v in e.outputs))
            for v in e.inputs:
                reaches.setdefault(v, set()).update(ahead)
            behind = frozenset().union(*(feeds.get(v, frozenset()) for v in e.inputs))  # type: ignore[arg-type]
            for k in behind:
                if any(power[j, k] or j == k for j in ahead) and of_leaf[k] is not None:
                    of_equation[e] = of_leaf[k]  # type: ignore[assignment]
                    break
        return of_leaf, of_equation

    def _time_of(self, v: Atom) -> int:
        if v in self.maker:
            e = self.maker[v]  # type: ignore[index]
            return self.time.get(self.cycle_of.get(e, e), 0)
        if v in self.number and v not in self.scan.kept:
            k = self.number[v]  # type: ignore[index]
            cycle = self.cycle_of_leaf[k]
            return (
                self.time.get(cycle, 0)
                if cycle is not None
                else self._time_of(self.scan.new[k]) + 1
            )
        return 0

    def _moved(self) -> bool:
        """Move what is earlier than its operands; whether anything was."""
        moved = False
        for e in self.equations:
            cycle, time = self.cycle_of.get(e), max(map(self._time_of, e.inputs))
            if cycle is not None:
                time += 1 - time % 2
            elif not is_cheap(e):
                time += time % 2
            node = e if cycle is None else cycle
            if time > self.time.get(node, -1):
                self.time[node], moved = time, True
        return moved

    def _settle(self) -> None:
        """Give equations the times of their cycles, and cheap ones a better time."""
        outputs = {
            *self.scan.outputs,
            *(v for k, v in enumerate(self.scan.new) if self.cycle_of_leaf[k] is None),
        }
        readers: dict[Any, list[int]] = {}
        for e in reversed(self.equations):
            if (cycle := self.cycle_of.get(e)) is not None:
                self.time[e] = self.time[cycle]
            elif is_cheap(e) and not any(v in outputs for v in e.outputs):
                times, now = {t for v in e.outputs for t in readers.get(v, ())}, self.time[e]
                in_one_loop = now % 2 == 0 and times == {now + 1}
                after_the_loop = now % 2 == 1 and min(times) > now
                self.time[e] = now + 1 if in_one_loop or after_the_loop else now
            for v in e.inputs:
                readers.setdefault(v, []).append(self.time[e])
