"""What must hold of the source tree as a whole."""

import ast
import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import braintrace
from braintrace.compat._instead import INSTEAD

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


FRAMEWORKS = {"brainevent", "brainstate", "brainunit", "saiunit"}


def loaded(code: str) -> set[str]:
    """The frameworks and optional packages that a fresh interpreter has imported after `code`."""
    code += "\nimport sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return (OPTIONAL | FRAMEWORKS) & set(done.stdout.split())


def test_import_brings_in_no_framework():
    assert loaded("import braintrace, braintrace.tasks, braintrace.rules") == set()
    assert loaded("import optax") == {"optax"}  # control: an optional package is seen


def slow_modules(code: str) -> str:
    """Those of the modules that take long to load, and that few programs need, after `code`."""
    slow = "'scipy', 'jax.experimental.sparse'"
    code += f"\nimport sys; print(*[name for name in ({slow}) if name in sys.modules])"
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_import_leaves_out_what_is_slow_to_load():
    assert slow_modules("import braintrace, braintrace.tasks, braintrace.rules") == ""
    used = slow_modules("import braintrace; from jax.experimental.sparse import BCOO")
    assert used == "scipy jax.experimental.sparse"  # control


def test_a_function_needs_no_framework():
    """Compiling, learning, reporting, and asking for a name that there is not."""
    code = """
import braintrace, jax.numpy as jnp
cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
w, h, xs = jnp.ones((4, 3)), jnp.zeros((2, 3)), jnp.ones((5, 2, 4))
learner = braintrace.compile(cell, "d_rtrl", xs[0], params=w, carry=h)
learner.etrace_grad(w, learner.init(w, h), xs, loss_fn=lambda out: out.sum(-1))
print(learner.report, hasattr(braintrace, "NoSuchName"), dir(braintrace))
"""
    assert loaded(code) == set()
    by_name = loaded("import braintrace; braintrace.D_RTRL")
    assert "brainstate" in by_name  # control: a brainstate name brings brainstate
    assert by_name & OPTIONAL <= loaded("import jax, brainstate")


def test_served_names_are_declared_to_type_checkers():
    source = ast.parse((ROOT / "src" / "braintrace" / "__init__.py").read_text())
    [block] = [n for n in source.body if isinstance(n, ast.If)]
    declared = {a.name for n in block.body for a in n.names if isinstance(n, ast.ImportFrom)}
    served = {"nn", *braintrace._BRAINSTATE, *braintrace._OPTIONAL}
    assert declared - set(INSTEAD) == served
    assert set(INSTEAD) <= declared
    assert served <= set(dir(braintrace))


def test_a_served_name_is_the_object_itself():
    names: dict[str, object] = {}
    exec("from braintrace import *", names)
    assert names["D_RTRL"] is braintrace.D_RTRL and names["nn"] is braintrace.nn
    for value in (braintrace.D_RTRL, braintrace.KappaFilter, braintrace.ES_D_RTRL):
        assert pickle.loads(pickle.dumps(value)) is value
    with pytest.raises(AttributeError, match="no attribute 'NoSuchName'"):
        braintrace.NoSuchName  # noqa: B018


def test_brainstate_imported_late_keeps_the_precision():
    code = """
import braintrace, jax
jax.config.update("jax_enable_x64", True)
braintrace.{name}
assert jax.config.read("jax_enable_x64")
"""
    for name in ("D_RTRL", "nn", "KappaFilter"):
        assert "brainstate" in loaded(code.format(name=name))
