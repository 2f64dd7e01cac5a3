"""`check_rule`: the laws that every rule keeps, on any rule and on any cells."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..core._domains import described, flag
from ..core._errors import BrainTraceError, CompilationError, UsageError, first_line
from ..gradients import checked_tolerance
from ..rules import Algorithm
from ._cells import CellExample, default_cells
from ._rule_laws import GRADIENTS, STATEMENTS
from ._rule_report import LAWS, LawRow, RuleReport
from ._rule_trial import Trial


def check_rule(
    rule: str | type[Algorithm] | Algorithm,
    cells: Mapping[str, CellExample] | Sequence[str] | None = None,
    *,
    laws: Sequence[str] | None = None,
    tolerance: float | None = None,
    raises: bool = True,
    **options: Any,
) -> RuleReport:
    """Check the laws that every learning rule keeps, on a rule of yours or of the library.

    The laws: gradients in windows of one step, of three, of the default size and in single steps
    agree (`windows`); a batch is the sum of its samples (`samples`); the gradient is linear in the
    learning signal (`linear`); a reset begins a new sequence (`reset`); what is masked, and what
    comes after the last loss, does not count (`mask`); of a rule that draws random numbers, a key
    gives the same ones on any window, and another key others (`draws`); `jax.jit`, scans and eager
    calls agree (`jit`), as do `jax.vmap` and a loop (`vmap`); the memory plan and the report have
    the bytes of the arrays (`bytes`); a parameter that is certified exact has the gradient of BPTT
    (`certificate`; where one has it without, the report notes it).

    A rule may refuse a cell, with an error of this library: the report says so. It takes some
    seconds a cell, most of them to compile.

    Args:
        rule: an algorithm's class, one with its options, or a name that `braintrace.compile`
            knows.
        cells: what to check it on: examples by name, or the names of some of `default_cells()`;
            by default all of these.
        laws: the names of those to check; by default all.
        tolerance: relative error up to which two gradients count as equal; by default that of
            `check_gradients`, which depends on the dtype. The laws are sharpest in float64
            (`jax.config.update("jax_enable_x64", True)`).
        raises: whether to raise when a law is broken.
        **options: those of the rule.

    Returns:
        A `RuleReport`, which prints as a table.

    Raises:
        AssertionError: with the report, when a law is broken, or the rule refuses every cell.
        UsageError: for a rule, options, cells or laws that there are not.

    >>> from braintrace import checks
    >>> report = checks.check_rule("ottt", ["leaky"], laws=["bytes", "certificate"], leak=0.8)
    >>> print(report)
    Laws of ottt: every law holds
    cell   bytes  certificate
    leaky  holds  holds
    leaky: certificate: ['w']: right, though not certified exact
    """
    chosen = _laws(laws)
    examples = _cells(cells)
    tolerance = checked_tolerance("tolerance", tolerance)
    flag("raises", raises)
    rows: list[LawRow] = []
    for name, example in examples.items():
        try:
            trial = Trial.of(rule, example, options, tolerance)
        except CompilationError as error:
            rows += [LawRow(name, law, refused=str(error)) for law in chosen]
            continue
        rows += [_checked(trial, name, law) for law in chosen]
    report = RuleReport(_name(rule), tuple(rows))
    if raises and not report.ok:
        raise AssertionError(str(report))
    return report


def _checked(trial: Trial, cell: str, law: str) -> LawRow:
    try:
        if law in STATEMENTS:
            problem, note = STATEMENTS[law](trial)
            return LawRow(cell, law, math.inf if problem else 0.0, problem, note)
        return _compared(trial, cell, law)
    except BrainTraceError as error:
        return LawRow(cell, law, refused=str(error))
    except Exception as error:  # whatever a rule of the user's raises
        return LawRow(cell, law, math.inf, first_line(error))


def _compared(trial: Trial, cell: str, law: str) -> LawRow:
    """The worst of the pairs that a law compares."""
    rows = [LawRow(cell, law, math.nan)]
    for what, found, right in GRADIENTS[law](trial):
        report = trial.compared(found, right)
        for row in report.rows:
            error = report.error(row)
            off = f"{what}: {row.path} differs by {row.relative_error:.1e}"
            error = math.inf if math.isnan(error) else error
            rows.append(LawRow(cell, law, error, "" if report.equal(row) else off))
    return max(rows, key=lambda row: -1.0 if math.isnan(row.error) else row.error)


def _name(rule: Any) -> str:
    if isinstance(rule, str):
        return rule
    return rule.name if isinstance(rule, Algorithm) else getattr(rule, "__name__", repr(rule))


def _laws(given: Sequence[str] | None) -> list[str]:
    if given is None:
        return list(LAWS)
    if isinstance(given, list | tuple) and given and {*given} <= {*LAWS}:
        return [law for law in LAWS if law in given]
    raise UsageError("Invalid laws.", got=repr(given), expected=f"a list of some of {list(LAWS)}")


def _cells(given: Any) -> Mapping[str, CellExample]:
    known = default_cells()
    if given is None:
        return known
    if isinstance(given, list | tuple) and given and {*map(str, given)} <= {*known}:
        return {name: known[name] for name in given}
    if isinstance(given, Mapping) and given:
        for name, example in given.items():
            if not isinstance(example, CellExample):
                raise UsageError(
                    f"Invalid cell {name!r}.", got=described(example), expected="a CellExample"
                )
        return given
    raise UsageError(
        "Invalid cells.",
        got=described(given),
        expected=f"examples by name, or a list of some of {list(known)}",
        do='cells={"mine": checks.CellExample(cell, params, carry, xs)}',
    )
