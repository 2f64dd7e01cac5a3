"""The wheel and the source archive are complete; the wheel works where only the declared
dependencies are.
"""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

SMOKE = """
import sys
import braintrace
from braintrace.tasks import japanese_vowels
assert "site-packages" in braintrace.__file__, braintrace.__file__
assert japanese_vowels().train.x.shape == (29, 270, 12)
optional = {"brainpy", "braintools", "equinox", "flax", "matplotlib", "optax", "rich", "tqdm"}
loaded = optional & {name.partition(".")[0] for name in sys.modules}
assert not loaded, loaded
print(braintrace.__version__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of the working tree, built with the build backend that is installed here."""
    folder = tmp_path_factory.mktemp("wheel")
    run(
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        folder,
        ROOT,
        cwd=folder,
    )
    (path,) = folder.glob("braintrace-*.whl")
    return path


def test_wheel_holds_the_package_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    package = ROOT / "src"
    expected = {
        str(path.relative_to(package))
        for path in (package / "braintrace").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in names if ".dist-info/" not in name} == expected
    assert {
        "braintrace/py.typed",
        "braintrace/tasks/data/japanese_vowels.npz",
        "braintrace/tasks/data/japanese_vowels.md",
    } <= expected
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_the_source_archive_has_what_tests_docs_and_benchmarks_need(tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", tmp_path, cwd=ROOT)
    (path,) = tmp_path.glob("braintrace-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = ("benchmarks", "docs", "examples", "src", "tests", "tools")
    files = [
        f
        for folder in folders
        for f in (ROOT / folder).rglob("*")
        if f.is_file() and "__pycache__" not in f.parts
    ]
    needed = {str(f.relative_to(ROOT)) for f in files} | {
        "Makefile",
        "mkdocs.yml",
        "pyproject.toml",
        "README.md",
        "LICENSE",
    }
    assert needed - names == set()


@pytest.mark.wheel
def test_wheel_works_in_an_empty_environment(wheel, tmp_path):
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-warn-script-location", wheel, cwd=tmp_path)
    run(python, "-m", "pip", "check", cwd=tmp_path)
    version = run(python, "-I", "-W", "error", "-c", SMOKE, cwd=tmp_path).strip()
    assert wheel.name.startswith(f"braintrace-{version}-")
