"""`CompilationReport`: what the compiler states about a model, for people and for programs."""

from typing import Any, TextIO

from ..cell import Cell
from ..core._domains import whole
from ..core._errors import UsageError
from ..core.analysis import Exactness
from ..core.traces import Carrier
from ._diagnostics import CompilationRecord, DiagnosticLevel, Path


class CompilationReport:
    """What the compiler states about a model; `print(learner.report)` shows it.

    Args:
        graph: the analysed model: of a brainstate model from `compile_etrace_graph`, or
            `learner.graph`; of others, `learner.report.graph`.
        carrier: how the algorithm stores traces; with it the table has their bytes.
        title: the algorithm's name.

    A path is what the framework calls a parameter or a state by: for brainstate as in
    `model.states()`, for NNX as in `nnx.to_flat_state`, for functions and Equinox modules a tuple
    of the name in the table.

    `etrace_weights` and `excluded_weights` are words of the PyPI package braintrace. Excluded from
    the traces does not mean
    untrained: such a parameter gets its ordinary gradient at every step.

    >>> import brainstate, braintrace, jax.numpy as jnp
    >>> cell = brainstate.nn.GRUCell(3, 4)
    >>> _ = brainstate.nn.init_all_states(cell)
    >>> report = braintrace.CompilationReport(braintrace.compile_etrace_graph(cell, jnp.zeros(3)))
    >>> report.hidden_groups
    [(0, (('h',),))]
    >>> report.counts["etrace_weights"]
    2
    >>> step = lambda p, h, x: ((h := 0.5 * h + x @ p["w"]), h @ p["o"])
    >>> params, h, x = (
    ...     {"w": jnp.ones((2, 3)), "o": jnp.ones((3, 1))},
    ...     jnp.zeros((4, 3)),
    ...     jnp.ones((4, 2)),
    ... )
    >>> report = braintrace.compile(step, "d_rtrl", x, params=params, carry=h).report
    >>> report.etrace_weights, [path for path, reason in report.excluded_weights]
    ([(("['w']",), [0])], [("['o']",)])
    """

    __module__ = "braintrace"

    def __init__(self, graph: Any, carrier: Carrier | None = None, title: str = "Model"):
        if not isinstance(getattr(graph, "cell", None), Cell):
            raise UsageError(
                "Not a compiled graph.",
                got=type(graph).__name__,
                expected="what learner.report.graph is",
                do="take learner.report",
            )
        self.graph = graph
        self._carrier, self._title = carrier, title

    @property
    def hidden_groups(self) -> list[tuple[int, tuple[Path, ...]]]:
        """For each state group, its number and the paths of its states."""
        return [(g.index, g.hidden_paths) for g in self.graph.hidden_groups]

    @property
    def etrace_weights(self) -> list[tuple[Path, list[int]]]:
        """For each parameter that acts on a group of states at a site, its path and the numbers of
        the groups.
        """
        found: dict[Path, list[int]] = {}
        for relation in self.graph.hidden_param_op_relations:
            for path in relation.trainable_paths.values():
                mine = found.setdefault(path, [])
                mine += [g.index for g in relation.hidden_groups if g.index not in mine]
        return list(found.items())

    @property
    def excluded_weights(self) -> list[tuple[Path, str]]:
        """For each parameter without a site at a group, its path and the reason."""
        traced, found = dict(self.etrace_weights), {}
        for row, path in zip(self.graph.parameters, self.graph.weight_paths, strict=True):
            if path not in traced:
                found.setdefault(path, row.reason)
        return list(found.items())

    @property
    def dynamic_states(self) -> list[Path]:
        """Paths of states that are in no group: delays, counters, whatever no derivative
        reaches.
        """
        return self.graph.dynamic_states

    @property
    def diagnostics(self) -> tuple[CompilationRecord, ...]:
        """The compiler's decisions, one record each."""
        return self.graph.diagnostics

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of groups, of weights with and without a trace, of warnings and errors, and of
        each kind of gradient.
        """
        levels = [r.level for r in self.diagnostics]
        kinds = [row.exactness for row in self.graph.parameters]
        return {
            "hidden_groups": len(self.hidden_groups),
            "etrace_weights": len(self.etrace_weights),
            "excluded_weights": len(self.excluded_weights),
            "warnings": levels.count(DiagnosticLevel.WARNING),
            "errors": levels.count(DiagnosticLevel.ERROR),
            **{str(k): kinds.count(k) for k in Exactness},
        }

    def to_str(self, level: int = 1) -> str:
        """The report as text: 1 is the table of groups, parameters, sites and dropped paths, 2 also
        the warnings.
        """
        if whole("level", level) > 2:
            raise UsageError("Invalid level.", got=level, expected="1 or 2")
        text = self.graph.cell.graph.table(self._carrier, self._title)
        if level < 2:
            return text
        notes = [f"{r} [{r.kind}]" for r in self.diagnostics if r.level is not DiagnosticLevel.INFO]
        return "\n\n".join([text, "\n".join(notes) or "no warnings"])

    def show(self, level: int = 1, *, file: TextIO | None = None) -> None:
        """Print `to_str(level)`."""
        print(self.to_str(level), file=file)

    def __str__(self) -> str:
        return self.to_str()
