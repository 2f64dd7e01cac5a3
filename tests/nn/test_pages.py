"""The pages on layers, operators, sparse weights and site rules: their examples run, and they name
everything.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from braintrace import nn

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = ["nn", "operators", "sparse", "site_rules"]


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page, users_environment):
    """In a process of their own, with warnings as errors: a page registers a primitive."""
    code = "\n".join(BLOCK.findall((DOCS / f"{page}.md").read_text()))
    assert code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=users_environment,
    )
    assert done.returncode == 0, done.stderr


def test_the_pages_name_every_layer_and_operator():
    text = (DOCS / "nn.md").read_text()
    missing = [n for n in nn.__all__ if f"`{n}" not in text and not n.startswith("ScaledWSConv")]
    assert missing == []
    text = (DOCS / "operators.md").read_text()
    operators = [
        "matmul",
        "grouped_matmul",
        "einsum",
        "embedding",
        "element_wise",
        "conv",
        "sparse_matmul",
        "lora_matmul",
    ]
    assert [n for n in operators if f"`{n}(" not in text] == []
