"""`RuleReport`: which laws a rule keeps, cell by cell."""

import dataclasses
import math
from collections.abc import Sequence

from ..core.analysis import columns

#: What each law says, in the order of the table.
LAWS = {
    "windows": "windows of one step, of three, of the default size, and single steps agree",
    "samples": "a batch is the sum of its samples, and no sample reads another",
    "linear": "the gradient is linear in the learning signal",
    "reset": "a reset begins a new sequence",
    "mask": "what has weight zero, and what comes after, does not count",
    "draws": "a key gives the same numbers on any window, and another key others",
    "jit": "jit, scan and eager calls agree",
    "vmap": "vmap is a loop",
    "bytes": "the memory plan and the report have the bytes of the arrays",
    "certificate": "what is certified exact is the gradient of BPTT",
}


@dataclasses.dataclass(frozen=True)
class LawRow:
    """One law on one cell.

    Attributes:
        cell, law: their names.
        error: how far the law is broken, relative to the gradient; of a law that is not one of
            numbers, 0 or infinity; nan where there is nothing to compare (no batch, say).
        problem: what is wrong, in words; '' where the law holds.
        note: where the law holds, what is worth knowing: parameters whose gradient is that of BPTT
            although no certificate promises it, say.
        refused: what the rule said when it refused the cell or the call; else ''.

    >>> from braintrace import checks
    >>> report = checks.check_rule("d_rtrl", ["leaky"], laws=["bytes"])
    >>> report.rows[0].law, report.rows[0].ok
    ('bytes', True)
    """

    cell: str
    law: str
    error: float = 0.0
    problem: str = ""
    note: str = ""
    refused: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong: the law holds, or the rule refuses."""
        return not self.problem


@dataclasses.dataclass(frozen=True)
class RuleReport:
    """The laws of a rule on a number of cells; `print(report)` shows a table, a cell a row.

    Attributes:
        name: the rule's.
        rows: for each cell and law what was found.

    >>> from braintrace import checks
    >>> report = checks.check_rule("d_rtrl", ["leaky"], laws=["bytes", "mask"])
    >>> report.ok, report.broken, report.refused
    (True, (), ())
    """

    name: str
    rows: tuple[LawRow, ...]

    @property
    def broken(self) -> tuple[LawRow, ...]:
        """What does not hold."""
        return tuple(row for row in self.rows if not row.ok)

    @property
    def refused(self) -> tuple[LawRow, ...]:
        """What the rule refused."""
        return tuple(row for row in self.rows if row.refused)

    @property
    def ok(self) -> bool:
        """Whether every law holds wherever the rule does not refuse, which is somewhere."""
        return not self.broken and len(self.refused) < len(self.rows)

    def __str__(self) -> str:
        cells, laws = (list(dict.fromkeys(of)) for of in zip(*map(_place, self.rows), strict=True))
        of = {_place(row): row for row in self.rows}
        table = [("cell", *laws)]
        table += [(cell, *(_shown(of[cell, law]) for law in laws)) for cell in cells]
        held = "every law holds" if self.ok else "LAWS ARE BROKEN"
        verdict = held if self.ok or self.broken else "NOTHING WAS CHECKED: every cell is refused"
        said = [r for r in self.rows if r.problem or r.note]
        notes = [f"{r.cell}: {r.law}: {r.problem or r.note}" for r in said]
        refusals = dict.fromkeys(f"{r.cell}: refused: {_line(r.refused)}" for r in self.refused)
        meaning = [f"{law}: {LAWS[law]}" for law in laws if any(r.law == law for r in self.broken)]
        title = f"Laws of {self.name}: {verdict}"
        return "\n".join([title, *columns(table), *notes, *refusals, *meaning])


def _place(row: LawRow) -> tuple[str, str]:
    return row.cell, row.law


def _shown(row: LawRow) -> str:
    if row.refused:
        return "refused"
    if math.isnan(row.error):
        return "-"
    return "holds" if row.ok else f"OFF {row.error:.0e}"


def _line(message: str) -> str:
    said: Sequence[str] = [line.strip() for line in message.strip().splitlines()]
    return " ".join(said)
