"""The examples of the README run, in the order in which they stand, and do what the text says."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_examples_run(capsys, single_precision):
    assert len(BLOCKS) == 4
    names = {}
    for block in BLOCKS[:3]:
        exec(compile(block, "README.md", "exec"), names)
    readout = names["gradients"][("readout", "weight")]
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(readout)), "the readout learns too"
    assert names["last"] < 0.8 * names["first"]
    assert names["losses"].shape == (50, 4)
    exec(compile(BLOCKS[3], "README.md", "exec"), names)
    assert all(jnp.any(g != 0) for g in jax.tree.leaves(names["gradients"]))
    printed = capsys.readouterr().out
    assert "approximate" in printed
    assert "exact" in printed
    assert re.search(r"loss \d\.\d+ -> \d\.\d+", printed)


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    for link in links:
        assert (Path(__file__).parents[1] / link).is_file(), link
