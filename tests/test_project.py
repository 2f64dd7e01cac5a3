"""What must hold of the source tree as a whole."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import braintrace

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
OPTIONAL = {"brainpy", "braintools", "equinox", "flax", "matplotlib", "optax", "rich", "tqdm"}


def imported_names(source: str) -> set[str]:
    """The dotted names that a module imports or reaches as attributes, as far as they can be read
    off.
    """
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return names


def uses_jax_internals(source: str) -> bool:
    return any(re.match(r"jax\._src\b", name) for name in imported_names(source))


def test_files_are_short():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in SOURCES}
    assert lengths
    assert {path: length for path, length in lengths.items() if length >= 400} == {}


def test_no_jax_internals():
    assert [
        str(path.relative_to(ROOT)) for path in SOURCES if uses_jax_internals(path.read_text())
    ] == []


@pytest.mark.parametrize(
    "source",
    [
        "import jax._src.core",
        "from jax._src import core",
        "from jax import _src",
        "jax._src.core.eval_jaxpr",
    ],
)
def test_jax_internals_are_noticed(source):
    assert uses_jax_internals(source)


def test_readme_opens_with_what_to_run():
    readme = (ROOT / "README.md").read_text()
    block = re.search(r"```\w*\n(.*?)```", readme, re.DOTALL)
    assert block
    assert [re.split(r"\s+#", line)[0] for line in block[1].splitlines()] == [
        "make demo",
        "make test",
    ]
    assert readme[: block.start()].count("\n") <= 10


def test_every_target_is_made_whatever_files_there_are():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    assert set(phony[1].split()) == set(
        re.findall(r"^([a-z][a-z-]*):(?!=)", makefile, re.MULTILINE)
    )


def test_one_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert braintrace.__version__ == version
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_import_brings_in_no_optional_package():
    """Beyond those that the declared dependencies import by themselves where they are installed."""

    def loaded(modules: str) -> set[str]:
        code = f"import sys, {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return OPTIONAL & set(done.stdout.split())

    assert loaded("braintrace, braintrace.tasks") <= loaded("jax, brainstate")
    assert loaded("optax") == {"optax"}  # control: an optional package is seen
