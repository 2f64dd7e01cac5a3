"""What the compiler decided about a model, as records that a program can ask."""

import dataclasses
import enum
from typing import Any

from ..core.analysis import Exactness

Path = tuple[Any, ...]


class DiagnosticLevel(enum.StrEnum):
    """How much a record matters: 'info', 'warning', 'error'.

    A gradient that leaves something out is a warning. What would be wrong raises; 'error' is there
    for programs that compare with it.

    >>> import braintrace
    >>> braintrace.DiagnosticLevel.WARNING.value
    'warning'
    """

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DiagnosticKind(enum.StrEnum):
    """What a record is about.

    * `RELATION_INCLUDED`: a parameter acts on a group of states at a site, and is traced there; one
      record for each site.
    * `RELATION_EXCLUDED_NON_TEMPORAL`: a parameter acts at its own step only (a readout); its
      ordinary gradient is the whole.
    * `RELATION_EXCLUDED_SHAPE_MISMATCH`: no site covers the way in which a parameter acts on the
      state; its gradient is instantaneous.
    * `RELATION_PARTIAL_PATH`: the trace of a parameter leaves a path out; one record for each path.
    * `HIDDEN_GROUP_MERGED`: several states are coupled neuron by neuron and form one group.
    * `SCAN_UNROLLED`, `COND_IF_CONVERTED`: a loop, or a branch, of the step was unfolded;
      `SCAN_UNROLL_SKIPPED`, `COND_CONVERSION_SKIPPED`: it was left as it is, as the
      `ControlFlowPolicy` says.

    The PyPI package braintrace has more kinds, for situations that do not arise here: a parameter
    takes part by what it does, not by the operator that it is used with.

    >>> import braintrace
    >>> braintrace.DiagnosticKind.RELATION_INCLUDED.value
    'relation_included'
    """

    RELATION_INCLUDED = "relation_included"
    RELATION_EXCLUDED_NON_TEMPORAL = "relation_excluded_non_temporal"
    RELATION_EXCLUDED_SHAPE_MISMATCH = "relation_excluded_shape_mismatch"
    RELATION_PARTIAL_PATH = "relation_partial_path"
    HIDDEN_GROUP_MERGED = "hidden_group_merged"
    SCAN_UNROLLED = "scan_unrolled"
    SCAN_UNROLL_SKIPPED = "scan_unroll_skipped"
    COND_IF_CONVERTED = "cond_if_converted"
    COND_CONVERSION_SKIPPED = "cond_conversion_skipped"


@dataclasses.dataclass(frozen=True)
class CompilationRecord:
    """One decision of the compiler.

    Attributes:
        kind: what it is about.
        level: how much it matters.
        message: the decision, for people.
        primitive: name of the JAX primitive concerned, or None.
        weight_path: path of the parameter concerned, or None.
        hidden_paths: paths of the hidden states concerned.
        context: more: 'source' (the user's line), 'operation', 'exactness', 'shape', where they
            apply.

    >>> import braintrace
    >>> record = braintrace.CompilationRecord(
    ...     braintrace.DiagnosticKind.SCAN_UNROLLED,
    ...     braintrace.DiagnosticLevel.INFO,
    ...     "a loop of 4 sub-steps is unrolled",
    ... )
    >>> print(record)
    info: a loop of 4 sub-steps is unrolled
    """

    kind: DiagnosticKind
    level: DiagnosticLevel
    message: str
    primitive: str | None = None
    weight_path: Path | None = None
    hidden_paths: tuple[Path, ...] = ()
    context: dict[str, Any] | None = None

    def __str__(self) -> str:
        return f"{self.level}: {self.message}"


def records(graph: Any) -> tuple[CompilationRecord, ...]:
    """The records of a named graph: groups, parameters, control flow."""
    return (*_of_groups(graph), *_of_parameters(graph), *_of_control_flow(graph))


def _of_groups(graph: Any) -> list[CompilationRecord]:
    return [
        CompilationRecord(
            DiagnosticKind.HIDDEN_GROUP_MERGED,
            DiagnosticLevel.INFO,
            f"{len(g.hidden_paths)} states are coupled neuron by neuron: group {g.index}",
            hidden_paths=g.hidden_paths,
        )
        for g in graph.hidden_groups
        if len(g.hidden_paths) > 1
    ]


def _of_parameters(graph: Any) -> list[CompilationRecord]:
    found = []
    for row, path in zip(graph.parameters, graph.weight_paths, strict=True):
        included = [r for r in graph.hidden_param_op_relations if row.path in r.parameters]
        for relation in included:
            found.append(
                CompilationRecord(
                    DiagnosticKind.RELATION_INCLUDED,
                    DiagnosticLevel.INFO,
                    f"{row.path} is traced at {relation.operation}",
                    relation.operation,
                    path,
                    relation.connected_hidden_paths,
                    {"source": relation.source, "exactness": str(row.exactness)},
                )
            )
        if not included:
            alone = row.exactness in (Exactness.EXACT, Exactness.FROZEN)
            kind = (
                DiagnosticKind.RELATION_EXCLUDED_NON_TEMPORAL
                if alone
                else DiagnosticKind.RELATION_EXCLUDED_SHAPE_MISMATCH
            )
            level = DiagnosticLevel.INFO if alone else DiagnosticLevel.WARNING
            found.append(
                CompilationRecord(
                    kind,
                    level,
                    f"{row.path} {row.reason}",
                    None,
                    path,
                    context={"shape": row.shape},
                )
            )
        for dropped in row.dropped:
            found.append(
                CompilationRecord(
                    DiagnosticKind.RELATION_PARTIAL_PATH,
                    DiagnosticLevel.WARNING,
                    f"the gradient of {row.path} leaves out a {dropped.kind} path through "
                    f"{dropped.operation}",
                    dropped.operation,
                    path,
                    (),
                    {
                        "source": dropped.source,
                        "operation": dropped.operation,
                        "path": dropped.kind,
                    },
                )
            )
    return found


def _of_control_flow(graph: Any) -> list[CompilationRecord]:
    kinds = {
        ("scan", False): DiagnosticKind.SCAN_UNROLLED,
        ("scan", True): DiagnosticKind.SCAN_UNROLL_SKIPPED,
        ("cond", False): DiagnosticKind.COND_IF_CONVERTED,
        ("cond", True): DiagnosticKind.COND_CONVERSION_SKIPPED,
    }
    found = []
    for u in graph.unfoldings:
        parts = f"{u.length} {'sub-steps' if u.operation == 'scan' else 'branches'}"
        done = (
            "is left as it is"
            if u.opaque
            else "is unrolled"
            if u.operation == "scan"
            else "is selected from"
        )
        level = DiagnosticLevel.WARNING if u.opaque else DiagnosticLevel.INFO
        message = f"a {u.operation} of {parts} {done}"
        found.append(
            CompilationRecord(
                kinds[u.operation, u.opaque],
                level,
                message,
                u.operation,
                context={"source": u.source},
            )
        )
    return found
