"""The pages of the front ends: their examples run in the order in which they stand, as a user
starts them, in float32.
"""

import doctest
import re
import subprocess
import sys
from pathlib import Path

import pytest

import braintrace

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "nnx": "flax",
    "equinox": "equinox",
    "functions": "flax",
    "batch": "jax",
    "leave_out": "jax",
}


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page, tmp_path, users_environment):
    pytest.importorskip(PAGES[page])
    pytest.importorskip("optax")
    blocks = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / f"{page}.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert blocks
    script = tmp_path / "page.py"
    script.write_text("\n".join(blocks))
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=users_environment
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "needs"),
    [("NNXLearner", "flax"), ("EquinoxLearner", "equinox"), ("stop_trace", "jax")],
)
def test_the_example_of_a_name_runs(name, needs):
    pytest.importorskip(needs)
    pytest.importorskip("optax")
    (example,) = doctest.DocTestFinder(recurse=False).find(
        getattr(braintrace, name), name, globs={}
    )
    assert doctest.DocTestRunner().run(example).failed == 0 < len(example.examples)
