"""What the engine works on: the problem (static), what a call prepares, what goes from step to
step.

The carry of the engine is the cell's, the leaves that the algorithm added, and whatever values a
body carries of its own behind them. Users see their own carry; the algorithm's leaves travel
inside the traces.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._compat import is_differentiable
from .._precision import narrowed, widened
from ..analysis import CellGraph, ExtraLeaf
from ..step import Perturbations, Step, Values, step
from ..traces import Traces, Unread
from ._rule import Rule, extra_of, with_extra
from ._signals import Signals, with_signals

stop = jax.lax.stop_gradient

# of the differentiable part of the prelude's values, and of a body's `extra`
Gradients = tuple[list[Array], PyTree]


class Stepped(NamedTuple):
    """What one step of a window gives: the cell's `Step`, the inputs it consumed, the weighted
    loss, and what to report.
    """

    step: Step
    xs: list[Array]
    loss: Float[Array, ""]
    report: PyTree


# (`step` or `saving_step`, values of the prelude, other differentiable values, carry,
# perturbations, this step's slice of the sequences) -> Stepped
Body = Callable[[Callable[..., Step], Values, PyTree, list[Array], Perturbations, PyTree], Stepped]


class Prepared(NamedTuple):
    """What a call has for all its steps: the values of the prelude, what else the body
    differentiates by, and the carry that a reset goes back to.
    """

    ready: list[Array]
    extra: PyTree
    initial: list[Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Steps:
    """What steps differ in, time first, or what one step has: slices of the sequences for the
    body, the algorithm's signals, and of the samples marks (B,) of those that are reset before the
    step, or None, and of those on whose step nothing depends (`Problem.dead`), or None.

    `whole`: whether a reset sets all the hidden state of a sample, so that nothing passes it.
    """

    slices: PyTree
    signals: Signals
    marks: Bool[Array, "T B"] | Bool[Array, " B"] | None
    dead: Bool[Array, "T B"] | Bool[Array, " B"] | None = None
    whole: bool = dataclasses.field(default=False, metadata={"static": True})

    @property
    def begun(self) -> Bool[Array, "T B"] | Bool[Array, " B"] | None:
        """The samples whose traces begin anew before a step."""
        return self.marks if self.marks is None or self.dead is None else self.marks | self.dead

    @property
    def unread(self) -> Unread:
        """The samples of each step on which nothing after the last step depends."""
        if self.marks is None or not self.whole or self.marks.shape[0] == 1:
            return self.dead
        later = jnp.zeros_like(self.marks).at[:-1].set(self.marks[1:])
        later = jax.lax.cummax(later.astype(jnp.int8), axis=0, reverse=True) > 0
        return later if self.dead is None else later | self.dead

    @property
    def restarted(self) -> Bool[Array, " B"] | None:
        """The samples for which no step reads what came before, where that is known."""
        if self.marks is None or not self.whole:
            return None
        return self.marks[0] if self.dead is None else self.marks[0] | self.dead[0]

    @property
    def count(self) -> int:
        """The number of steps."""
        return jax.tree.leaves(self.slices)[0].shape[0]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EngineState:
    """What goes from step to step. `traces` are those of the rule's carrier; None for zero."""

    carry: list[Array]
    traces: Traces

    @classmethod
    def of(cls, graph: CellGraph, carry: Values, traces: Traces) -> "EngineState":
        """From a carry of the cell, and traces as users hold them."""
        if not graph.extra:
            return cls(list(carry), traces)
        own = len(graph.carry) - len(graph.extra)
        if traces is None:
            traces = with_extra(graph, None, [jnp.asarray(e.initial) for e in graph.extra])
        return cls([*carry[:own], *extra_of(graph, traces), *carry[own:]], traces["carrier"])

    def parts(self, graph: CellGraph) -> tuple[list[Array], Traces]:
        """The carry and the traces as users hold them."""
        if not graph.extra:
            return self.carry, self.traces
        own, end = len(graph.carry) - len(graph.extra), len(graph.carry)
        added = with_extra(graph, self.traces, self.carry[own:end])
        return [*self.carry[:own], *self.carry[end:]], None if self.traces is None else added


@dataclasses.dataclass(frozen=True, eq=False)
class Problem:
    """What is the same at every call: the cell, the algorithm, what a step is and what its loss.

    `resets`: the leaves of the cell's carry that a reset sets to their initial values.
    """

    graph: CellGraph
    rule: Rule
    body: Body
    resets: tuple[int, ...] = ()

    def bound(self, prepared: Prepared) -> "Problem":
        """The problem whose site rules have the values that they need of the prelude."""
        graph = self.graph
        return dataclasses.replace(self, graph=graph.bound(stop(graph.structure(prepared.ready))))

    def begin(self, prepared: Prepared, carry: Values, at: Steps) -> list[Array]:
        """The carry that a step reads: marked samples with their initial values, the algorithm's
        signals set. A reset is a selection, so that nothing of the old state passes, its derivative
        neither. The same goes for a dead step: no derivative passes, and what is not finite is
        replaced, so that what the samples share gets no NaN from it (0 times NaN).
        """
        graph, carry = self.graph, list(carry)
        if at.marks is not None:
            initial = {k: stop(prepared.initial[k]) for k in self.resets}
            initial |= {k: v.initial for k, v in self._restarting.items()}
            for k, value in initial.items():
                if (axis := graph.leaf_axis(k)) is not None:
                    along = lambda marks, axis=axis, k=k: axis.along(marks, carry[k].ndim)
                    carry[k] = jnp.where(along(at.marks), value, carry[k])
                    if at.dead is not None and is_differentiable(carry[k].dtype):
                        finite = stop(jnp.where(jnp.isfinite(carry[k]), carry[k], value))
                        carry[k] = jnp.where(along(at.dead), finite, carry[k])
        return with_signals(graph, carry, at.signals)

    @property
    def _restarting(self) -> dict[int, ExtraLeaf]:
        """By number, the leaves of the algorithm that a reset sets to their first values."""
        first = len(self.graph.carry) - len(self.graph.extra)
        return {first + k: v for k, v in enumerate(self.graph.extra) if not v.shared}

    @property
    def resets_whole(self) -> bool:
        """Whether a reset sets all the hidden state of a sample."""
        known = {*self.resets, *self._restarting}
        return all(k in known and self.graph.leaf_axis(k) is not None for k in self.graph.hidden)

    def dead(
        self, counts: Bool[Array, "T #B"], marks: Bool[Array, "T B"], keep: bool
    ) -> Bool[Array, "T B"] | None:
        """The samples of each step on which nothing depends: they are reset before the next loss
        that counts, or before the state that is kept. None where that is not known: where the
        losses are not of the samples, or a reset leaves some of the hidden state as it is.
        """
        if not self.resets_whole or counts.shape[1] not in (1, marks.shape[1]):
            return None

        def back(read: Bool[Array, " B"], at: PyTree) -> tuple[Bool[Array, " B"], Array]:
            counts, mark = at
            read = read | counts
            return read & ~mark, ~read

        end, every = jnp.full(marks.shape[1], keep), jnp.broadcast_to(counts, marks.shape)
        return jax.lax.scan(back, end, (every, marks), reverse=True)[1]

    def marked_step(self, prepared: Prepared) -> Callable[..., Step]:
        """`step` for inputs with `marks` and `dead` of the step behind them."""

        def evaluate(
            graph: CellGraph, ready: Values, carry: Values, xs: Values, perturbations: Perturbations
        ) -> Step:
            *xs, marks, dead = xs
            start = self.begin(prepared, carry, Steps(None, {}, marks, dead))
            return step(graph, ready, start, xs, perturbations)

        return evaluate


def own_carry(graph: CellGraph, carry: Values) -> Values:
    """The graph's part of a carry: a body may carry more values of its own behind it."""
    return carry[: len(graph.carry)]


def differentiable_part(
    graph: CellGraph, ready: Values
) -> tuple[Callable[[list[Array]], list[Array]], list[Array]]:
    """The differentiable values of the prelude, wide, and a function that puts them back among the
    others, in their own dtypes: what is added up over steps is the gradient of the wide ones.
    """
    numbers = [k for k, v in enumerate(graph.prelude_results) if v.differentiable]
    own = [ready[k] for k in numbers]

    def merge(live: list[Array]) -> list[Array]:
        of = dict(zip(numbers, narrowed(live, own), strict=True))
        return [of.get(k, stop(v)) for k, v in enumerate(ready)]

    return merge, widened(own)


def added(graph: CellGraph, live: Values, gradients: Sequence[Array | None]) -> list[Array]:
    """`live`, gradients of the differentiable part of the prelude, with each site's gradient (None
    for none) added to that of its weight.
    """
    variables = [v for v in graph.prelude_results if v.differentiable]
    sums = dict(zip(variables, live, strict=True))
    for site, gradient in zip(graph.sites, gradients, strict=True):
        if gradient is not None:
            sums[site.weight] = sums[site.weight] + gradient.astype(sums[site.weight].dtype)
    return [sums[v] for v in variables]
