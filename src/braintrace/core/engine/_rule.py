"""A rule: the parts that an algorithm chooses."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from .._errors import CompilationError
from ..analysis import CellGraph, Exactness, Signature, find_exits, reach
from ..jaxpr import Var
from ..signals import ESTIMATOR, Edit, Editor, random_value
from ..step import Values, prelude
from ..traces import Carrier, Learned, Traces, learned_in, made, sensitivity, zeros_of_extra


@dataclasses.dataclass(frozen=True)
class Rule:
    """What an algorithm is made of. `multi_step_problem`: why BPTT inside a window has no meaning
    for it, or ''.

    Attributes:
        name: for reports and errors.
        carrier: the kind of traces, what is stored in place of the influence of a weight.
        edits: what is changed in the program of the cell, in this order.
        multi_step_problem: as above; it ends an error.
        schedule: 'A', 'O' or a whole number of steps, when `etrace_fit` updates; None for its own
            choice.
        target_timing: 'per-step' or 'sequence-end', for rules that project targets.
        traces_all_state: whether a state that is read through products alone has a trace as well.
        options: set by `Algorithm.rule`.

    >>> from braintrace import rules
    >>> rule = rules.Rule("filtered", rules.PerParameter(), (rules.OutputFilter(0.9),))
    >>> rule.carrier, rule.edits
    (PerParameter(dtype=None, clip=None), (OutputFilter(leak=0.9),))
    """

    name: str
    carrier: Carrier
    edits: tuple[Edit, ...] = ()
    multi_step_problem: str = ""
    schedule: str | int | None = None  # for algorithms that say when `etrace_fit` updates
    # 'per-step' or 'sequence-end', for algorithms that project targets
    target_timing: str | None = None
    # whether a state that no later step reads but through products has a trace as well
    traces_all_state: bool = False
    # those that the algorithm was given, by name, as texts
    options: tuple[tuple[str, str], ...] = ()

    def resolve(self, graph: CellGraph, params: Values | None, xs: Values | None) -> "Rule":
        """The rule with what it reads from the model, the leak of a group, put in as numbers."""
        leak_of = lambda group: _group_leak(graph, group, params, xs)
        carrier = self.carrier.resolve(graph, leak_of)
        exits = find_exits(graph) if self.edits else []
        edits = tuple(e.resolve(exits, leak_of) for e in self.edits)
        if params is not None:
            values = lambda: dict(zip(graph.prelude_results, prelude(graph, params), strict=True))
            edits = tuple(e.measured(graph, exits, values) for e in edits)
        return dataclasses.replace(self, carrier=carrier, edits=edits)

    def apply(self, graph: CellGraph, signature: Signature, max_slots: int) -> CellGraph:
        """The graph of the cell with the rule's edits, and with the rows of the cell before them,
        which say what the carrier and the edits put in place of the gradient.
        """
        exits = find_exits(graph) if self.edits else []
        edits = [edit for edit in self.edits if edit.replaces]
        changed = [(edit.replaces, set(edit.acts_on(graph, exits))) for edit in edits]
        rows, arranged = [], self.carrier.arrange(graph)
        for row, param in zip(arranged.parameters, arranged.params, strict=False):
            # with layers each site has a trace, also without a place
            sites = [arranged.sites[n] for n in row.sites]
            traced = [s for s in sites if s.places or arranged.layers is not None]
            reasons = list(dict.fromkeys(self.carrier.approximates(arranged, s) for s in traced))
            reasons = [reason for reason in reasons if reason]
            reasons += [self._rounding] if traced and self._rounding else []
            reached = _ever_reached(arranged, param) if changed else set()
            reasons += [replaces for replaces, acts_on in changed if reached & acts_on]
            if reasons:
                instantaneous = row.exactness is Exactness.INSTANTANEOUS
                kind = Exactness.INSTANTANEOUS if instantaneous else Exactness.APPROXIMATE
                kept = [] if row.exactness is Exactness.EXACT else [row.reason]
                row = dataclasses.replace(row, exactness=kind, reason="; ".join([*kept, *reasons]))
            warnings = [w for site in traced for w in self.carrier.warnings(arranged, site)]
            warnings += [w for site in traced for edit in self.edits for w in edit.warnings(site)]
            rows.append(dataclasses.replace(row, warnings=tuple(dict.fromkeys(warnings))))
        if self.edits:  # they change the program's equations
            editor = Editor(graph)
            for edit in self.edits:
                edit.edit(editor, exits)
            graph = editor.analysed(signature, max_slots)
        return dataclasses.replace(self.carrier.arrange(graph), parameters=tuple(rows))

    @property
    def _rounding(self) -> str:
        """What a dtype below single precision does to the traces; '' for nothing."""
        dtype = getattr(self.carrier, "dtype", None)
        narrow = dtype is not None and jnp.finfo(dtype).bits < 32
        return f"its traces are rounded to {jnp.dtype(dtype)}" if narrow else ""

    def init(self, graph: CellGraph) -> Traces:
        """Zero traces: those of the carrier and, where the rule added leaves to the carry, the
        leaves' first values.
        """
        carried = self.carrier.init(graph)
        if not graph.extra:
            return carried
        return with_extra(graph, carried, made(zeros_of_extra(graph)))

    def zeros(self, graph: CellGraph) -> PyTree:
        """As `Zeros`."""
        carried = self.carrier.zeros(graph)
        if not graph.extra:
            return carried
        return with_extra(graph, carried, zeros_of_extra(graph))


def with_extra(graph: CellGraph, carried: PyTree, values: Sequence[Any]) -> dict[str, PyTree]:
    """Traces as users hold them: those of the carrier, and the leaves that the rule added; what it
    learns by itself.
    """
    pairs = list(zip(graph.extra, values, strict=True))
    learned = [v for e, v in pairs if e.name == ESTIMATOR]
    traces = {"carrier": carried, "extra": [v for e, v in pairs if e.name != ESTIMATOR]}
    return traces | ({"learned": Learned(learned)} if learned else {})


def extra_of(graph: CellGraph, traces: Traces) -> list[Array]:
    """The values of the leaves that the rule added, in their order: the inverse."""
    plain, learned = iter(traces["extra"]), iter([w for v in learned_in(traces) for w in v.weights])
    return [next(learned if e.name == ESTIMATOR else plain) for e in graph.extra]


def _ever_reached(graph: CellGraph, param: Var) -> set[Var]:
    """The variables that a derivative from `param` reaches, at its own step or at a later one."""
    start, found = {param}, set[Var]()
    while not start <= found:
        found = reach([*graph.prelude, *graph.step], start | found)
        start = {old for old, new in zip(graph.carry, graph.new_carry, strict=True) if new in found}
    return found


def _group_leak(graph: CellGraph, group: int, params: Values | None, xs: Values | None) -> float:
    """dh_t/dh_{t-1} of a group's one state, when it is one constant: the same at all positions and
    at different states.
    """
    slots = graph.groups[group].slots
    names = [graph.leaf_paths[k] for k in graph.groups[group].leaves]
    if params is None:
        raise CompilationError(
            "The leak can be read from the model only when its parameters are known.",
            got="abstract parameters",
            do="compile with concrete parameters, or give the leak as a number",
        )

    refuse = functools.partial(CompilationError, do="give the leak as a number")
    if len(slots) != 1 or all(p.group != group for site in graph.sites for p in site.places):
        lacking = f"no parameter acts on the group of {names}", "one that is traced"
        several = f"{len(slots)} state variables in the group of {names}", "one"
        got, expected = several if len(slots) != 1 else lacking
        raise refuse("The leak cannot be read from the model.", got=got, expected=expected)
    values = []
    for seed in (0, 1):
        random = np.random.default_rng(seed)
        carry = [random_value(v, random) for v in graph.carry]
        inputs = [random_value(v, random) for v in graph.xs] if xs is None else xs
        moved = sensitivity(graph, prelude(graph, params), carry, [x[None] for x in inputs])
        rows, _ = moved.slots[group, 0]
        values += np.ravel(rows[graph.hidden.index(slots[0].leaf)]).tolist()
    if not np.allclose(values, values[0], rtol=1e-5, atol=1e-7):
        raise refuse(
            "The leak of the model is not constant.",
            got=f"{min(values):.4g} to {max(values):.4g}",
            expected=f"one constant for {names}",
        )
    return values[0]
