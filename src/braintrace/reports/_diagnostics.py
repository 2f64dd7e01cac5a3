"""What the compiler decided about a model, as records that a program can ask."""

import dataclasses
import enum
from collections.abc import Iterator
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
    * `RELATION_NORMALISED`: a factorised trace of a parameter lies in front of a normalisation.
    * `HIDDEN_GROUP_MERGED`: several states are coupled neuron by neuron and form one group.
    * `SCAN_UNROLLED`, `COND_IF_CONVERTED`: a loop, or a branch, of the step was unfolded;
      `SCAN_UNROLL_SKIPPED`, `COND_CONVERSION_SKIPPED`: it was left as it is, as the
      `ControlFlowPolicy` says.

    The others are kinds of the PyPI package braintrace, for situations that do not arise here: a
    parameter takes part by what it does, not by the operator that it is used with. No record has
    them; programs may ask for them.

    >>> import braintrace
    >>> braintrace.DiagnosticKind.RELATION_INCLUDED.value
    'relation_included'
    """

    RELATION_INCLUDED = "relation_included"
    RELATION_EXCLUDED_NON_TEMPORAL = "relation_excluded_non_temporal"
    RELATION_EXCLUDED_SHAPE_MISMATCH = "relation_excluded_shape_mismatch"
    RELATION_PARTIAL_PATH = "relation_partial_path"
    RELATION_NORMALISED = "relation_normalised"
    HIDDEN_GROUP_MERGED = "hidden_group_merged"
    SCAN_UNROLLED = "scan_unrolled"
    SCAN_UNROLL_SKIPPED = "scan_unroll_skipped"
    COND_IF_CONVERTED = "cond_if_converted"
    COND_CONVERSION_SKIPPED = "cond_conversion_skipped"
    RELATION_EXCLUDED_NO_PARAMSTATE = "relation_excluded_no_paramstate"
    RELATION_EXCLUDED_SLICED_WEIGHT = "relation_excluded_sliced_weight"
    RELATION_EXCLUDED_WEIGHT_TO_WEIGHT = "relation_excluded_weight_to_weight"
    TRAINABLE_INVAR_NOT_PARAMSTATE = "trainable_invar_not_paramstate"
    PYTREE_WEIGHT_LEAF_AMBIGUOUS = "pytree_weight_leaf_ambiguous"
    STATE_MISMATCH = "state_mismatch"
    SCAN_DESCENT_APPLIED = "scan_descent_applied"
    SCAN_DESCENT_SKIPPED = "scan_descent_skipped"
    SCAN_DESCENT_NO_RELATIONS = "scan_descent_no_relations"
    WEIGHT_IN_CONTROL_FLOW = "weight_in_control_flow"
    WEIGHT_IN_WHILE = "weight_in_while"
    CONTROL_FLOW_OPAQUE_FWD = "control_flow_opaque_fwd"
    CONTROL_FLOW_RECURRENT_MIXING = "control_flow_recurrent_mixing"
    PRIMITIVE_INSIDE_CONTROL_FLOW = "primitive_inside_control_flow"
    PRIMITIVE_INSIDE_NESTED_JIT = "primitive_inside_nested_jit"
    MULTI_OUTPUT_PRIMITIVE_DETECTED = "multi_output_primitive_detected"
    TRANSITION_TAIL_BOUNDED = "transition_tail_bounded"
    SNAP_PATTERN_CONSERVATIVE = "snap_pattern_conservative"
    SNAP_PATTERN_DEGENERATE = "snap_pattern_degenerate"


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


def _of_groups(graph: Any) -> Iterator[CompilationRecord]:
    for g in graph.hidden_groups:
        if (count := len(g.hidden_paths)) > 1:
            what = f"{count} states are coupled neuron by neuron: group {g.index}"
            kind = DiagnosticKind.HIDDEN_GROUP_MERGED
            yield CompilationRecord(kind, DiagnosticLevel.INFO, what, hidden_paths=g.hidden_paths)


def _of_parameters(graph: Any) -> Iterator[CompilationRecord]:
    kinds, info, warning = DiagnosticKind, DiagnosticLevel.INFO, DiagnosticLevel.WARNING
    alone = Exactness.EXACT, Exactness.FROZEN, Exactness.UNUSED
    for row, path in zip(graph.parameters, graph.weight_paths, strict=True):
        included = [r for r in graph.hidden_param_op_relations if row.path in r.parameters]
        for r in included:
            what = f"{row.path} is traced at {r.operation}", r.operation, path
            given = {"source": r.source, "exactness": str(row.exactness)}
            states = r.connected_hidden_paths
            yield CompilationRecord(kinds.RELATION_INCLUDED, info, *what, states, given)
        if not included:
            kind, level = kinds.RELATION_EXCLUDED_SHAPE_MISMATCH, warning
            if row.exactness in alone:
                kind, level = kinds.RELATION_EXCLUDED_NON_TEMPORAL, info
            what, given = f"{row.path} {row.reason}", {"shape": row.shape}
            yield CompilationRecord(kind, level, what, None, path, context=given)
        for d in row.dropped:
            what = f"the gradient of {row.path} leaves out a {d.kind} path through {d.operation}"
            given = {"source": d.source, "operation": d.operation, "path": d.kind}
            said = warning, what, d.operation, path
            yield CompilationRecord(kinds.RELATION_PARTIAL_PATH, *said, context=given)
        for what in row.warnings:
            what = f"{row.path}: {what}"
            yield CompilationRecord(kinds.RELATION_NORMALISED, warning, what, None, path)


def _of_control_flow(graph: Any) -> Iterator[CompilationRecord]:
    kinds = {
        ("scan", False): (DiagnosticKind.SCAN_UNROLLED, "sub-steps is unrolled"),
        ("scan", True): (DiagnosticKind.SCAN_UNROLL_SKIPPED, "sub-steps is left as it is"),
        ("cond", False): (DiagnosticKind.COND_IF_CONVERTED, "branches is selected from"),
        ("cond", True): (DiagnosticKind.COND_CONVERSION_SKIPPED, "branches is left as it is"),
    }
    for u in graph.cell.unfoldings:
        kind, done = kinds[u.operation, u.opaque]
        level = DiagnosticLevel.WARNING if u.opaque else DiagnosticLevel.INFO
        said = f"a {u.operation} of {u.length} {done}", u.operation
        yield CompilationRecord(kind, level, *said, context={"source": u.source})
