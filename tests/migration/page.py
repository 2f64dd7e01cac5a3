"""The tables of the page, and tests that belong to their rows."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brainstate

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)


def tables(page: Path) -> dict[str, dict[str, str]]:
    """The tables of a page by their headings: the rows, by their first cells."""
    found: dict[str, dict[str, str]] = {}
    heading = ""
    for paragraph in page.read_text().split("\n\n"):
        heading = paragraph.lstrip("# ") if paragraph.startswith("#") else heading
        rows = [[cell.strip() for cell in row.split("|")] for row in ROW.findall(paragraph)]
        if rows:
            found[heading] = {first: " | ".join(rest) for first, *rest in rows[2:]}
            assert len(found[heading]) == len(rows) - 2, "two rows begin alike"
    return found


def alike(kind: Callable) -> Any:
    """A model of the same weights at every call."""
    brainstate.random.seed(3)
    return kind()


class Rows:
    """The tests of a table, each under the first cell of its row."""

    def __init__(self, heading: str, page: Path = DOCS / "migration.md"):
        self.page, self.tests = tables(page)[heading], dict[str, Callable[..., Any]]()

    def __call__(self, first: str) -> Callable:
        def register(test: Callable) -> Callable:
            assert first not in self.tests, first
            self.tests[first] = test
            return test

        return register

    def check(self) -> None:
        """Every row has a test, and every test a row."""
        assert set(self.page) == set(self.tests)
