"""The docs: every example runs, every algorithm and every public name has its place, and the site
builds without a warning.
"""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import braintrace
from braintrace.rules import ALGORITHMS

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "algorithms").glob("*.md"))
REFERENCE = runpy.run_path(str(ROOT / "tools" / "docs_reference.py"))
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != "index.md"], ids=lambda p: p.stem)
def test_the_example_runs(page, single_precision):
    (code,) = BLOCK.findall(page.read_text())
    exec(compile(code, str(page), "exec"), {"__name__": "example"})


def test_every_algorithm_has_a_page():
    index = next(p for p in PAGES if p.name == "index.md").read_text()
    linked = set(re.findall(r"\]\((\w+\.md)\)", index))
    assert linked == {p.name for p in PAGES} - {"index.md"}
    text = index + "".join(p.read_text() for p in PAGES)
    assert all(
        f"'{name}'" in text or f'"{name}"' in text
        for name in ALGORITHMS
        if name not in ("e_prop", "esd_rtrl")
    )


def test_every_page_says_what_it_must():
    for page in PAGES:
        if page.name != "index.md":
            text = page.read_text()
            assert all(
                word in text
                for word in ("**Cost.**", "Memory", "**Exact**", "**Choose it**", "**Reference.**")
            ), page


@pytest.mark.parametrize("name", ["index", "migration", "own_rule", "scale", "states"])
def test_the_examples_of_a_page_run_in_their_order(name, single_precision):
    names = {"__name__": "page"}
    for block in BLOCK.findall((ROOT / "docs" / f"{name}.md").read_text()):
        exec(compile(block, f"{name}.md", "exec"), names)
    assert "gradients" in names


@pytest.mark.filterwarnings("ignore:braintrace.* is a name of release 0.1:DeprecationWarning")
def test_every_public_name_is_in_the_reference(monkeypatch):
    assert REFERENCE["missing"]() == []
    shown = REFERENCE["documented"]()
    assert len(shown) == len(set(shown)), "a name has two entries"
    assert [name for name in shown if not _exists(name)] == []
    monkeypatch.setattr(
        braintrace, "NewName", type("NewName", (), {"__module__": "braintrace"}), raising=False
    )
    assert REFERENCE["missing"]() == ["braintrace.NewName"]  # control
    for lazy in ("NNXLearner", "EquinoxLearner", "ETraceParam", "LoraOp"):
        assert lazy in REFERENCE["public_names"]("braintrace")


def _exists(name):
    value = braintrace
    for part in name.split(".")[1:]:
        value = getattr(value, part, None)
    return value is not None


def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings_handlers.python")
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "site" / "reference" / "algorithms.html").read_text()
    assert "<math" in page and ".. math::" not in page and ":math:" not in page
    assert 'href="benchmarks/index.html"' in (tmp_path / "site" / "index.html").read_text()
    benchmarks = (tmp_path / "site" / "benchmarks" / "index.html").read_text()
    assert (
        'src="ratios.png"' in benchmarks
        and (tmp_path / "site" / "benchmarks" / "ratios.png").is_file()
    )


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r"[\w/]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert listed == {str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")} | {
        "benchmarks/README.md"
    }
