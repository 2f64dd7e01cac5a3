"""The pages of the algorithms: every example runs, and every algorithm has a page that the index names."""

import re
from pathlib import Path

import pytest

from braintrace._algorithms import ALGORITHMS

PAGES = sorted((Path(__file__).parents[1] / "docs" / "algorithms").glob("*.md"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "index.md"], ids=lambda p: p.stem)
def test_the_example_runs(page):
    (code,) = BLOCK.findall(page.read_text())
    exec(compile(code, str(page), "exec"), {"__name__": "example"})


def test_every_algorithm_has_a_page():
    index = next(p for p in PAGES if p.name == "index.md").read_text()
    linked = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert linked == {p.name for p in PAGES} - {"index.md"}
    text = index + "".join(p.read_text() for p in PAGES)
    assert all(f"'{name}'" in text or f'"{name}"' in text for name in ALGORITHMS if name not in ("e_prop", "esd_rtrl"))


def test_every_page_says_what_it_must():
    for page in PAGES:
        if page.name != "index.md":
            text = page.read_text()
            assert all(word in text for word in ("**Cost.**", "Memory", "**Exact**", "**Choose it**", "**Reference.**")), page
