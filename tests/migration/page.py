"""The tables of a page of the docs."""

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
ROW = re.compile(r"^\|(.*)\|$", re.MULTILINE)


def tables(name: str) -> list[dict[str, list[str]]]:
    """Each table of a page: by a row's first cell, the other ones. The head is a row, too."""
    found = []
    for paragraph in (DOCS / f"{name}.md").read_text().split("\n\n"):
        rows = [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", row)] for row in ROW.findall(paragraph)
        ]
        if rows:
            assert set(rows[1][0]) <= {"-"}, rows[1]
            found.append({first: rest for first, *rest in rows[:1] + rows[2:]})
            assert len(found[-1]) == len(rows) - 1, "two rows of one name"
    return found
