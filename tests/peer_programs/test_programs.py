"""Every program runs unchanged, with its own assertions."""

import re
import runpy
import warnings
from pathlib import Path

import pytest

pytest.importorskip("braintools")

PROGRAMS = sorted((Path(__file__).parent / "programs").glob("*.py"))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_program_runs(path):
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # those of the frameworks; a program that is about warnings records them itself
        runpy.run_path(str(path), run_name="__main__")


def test_programs_are_in_the_style_of_the_package():
    assert len(PROGRAMS) >= 50
    for path in PROGRAMS:
        text = path.read_text()
        assert "import braintrace" in text and re.search(r"^assert ", text, re.MULTILINE), path
        assert not re.search(r"braintrace\.(checks|tasks|_)|reset_state\(model=", text), (
            path
        )  # names of this library alone
