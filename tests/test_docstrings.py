"""Every public name has a docstring with an example, and the examples do what they say."""

import doctest
import runpy
from pathlib import Path

import pytest

TOOL = runpy.run_path(str(Path(__file__).parents[1] / "tools" / "docs_reference.py"))
NAMES = {f"{m}.{n}": v for m in TOOL["available"]() for n, v in TOOL["public_names"](m).items()}


pytestmark = pytest.mark.usefixtures(
    "single_precision"
)  # examples are written for JAX as it is by default


@pytest.mark.parametrize("name", NAMES)
def test_example(name):
    found = doctest.DocTestFinder(recurse=False).find(NAMES[name], name, globs={})
    examples = [test for test in found if test.examples]
    assert examples, f"{name} has no example (>>>)"
    for test in examples:
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
        report: list[str] = []
        runner.run(test, out=report.append)
        assert runner.failures == 0, "".join(report)
