"""Every example runs in its quick form, as a user starts it, and learns."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("optax")

EXAMPLES = Path(__file__).parents[1] / "examples"
CONTROLS = {
    "BPTT",
    "readout only",
    "pp_prop, decay 0.0",
    "each step alone",
}  # shown for comparison; some need longer, some do not learn
ALGORITHMS = [
    "d_rtrl",
    "eprop",
    "ostl_feedforward",
    "ostl_recurrent",
    "osttp",
    "otpe",
    "ottt",
    "pp_prop",
    "rflo",
]
PROGRAMS = [
    "connectome",
    "conv_spiking_events",
    "distributed",
    "ei_spiking",
    "equinox_lstm",
    "kernl",
    "lru_digits",
    "nnx_gru_copy",
    "streaming_regression",
]
WITHOUT_END = "distributed", "streaming_regression"
NEEDS = {
    "connectome": "brainevent",
    "equinox_lstm": "equinox",
    "lru_digits": "sklearn",
    "nnx_gru_copy": "flax",
}
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("[a-z]*.py"))


def run(name: str, environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(printed: str) -> dict[str, dict[str, str]]:
    """The last table: for each method its cells by heading."""
    lines = printed.rstrip().splitlines()
    rule = max(k for k, line in enumerate(lines) if set(line) == {"-"})
    heading, *body = [re.split(r" {2,}", line) for line in (lines[rule - 1], *lines[rule + 1 :])]
    return {row[0]: dict(zip(heading, row, strict=True)) for row in body}


def test_every_algorithm_has_one():
    assert sorted(ALGORITHMS + PROGRAMS) == SCRIPTS


@pytest.mark.parametrize("name", SCRIPTS)
def test_quick_form_learns(name, users_environment):
    pytest.importorskip(NEEDS.get(name, "jax"))
    found = rows(run(name, users_environment, "--quick"))
    assert ("BPTT" in found) != (name in WITHOUT_END), "BPTT needs an end"
    learning = [row for method, row in found.items() if method not in CONTROLS]
    assert learning
    for row in learning:
        assert float(row["last loss"]) < float(row["first loss"]), row


def test_readme_names_every_script():
    text = (EXAMPLES / "README.md").read_text()
    assert [name for name in SCRIPTS if f"{name}.py" not in text] == []
