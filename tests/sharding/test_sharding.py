"""Each rule on a mesh of 8 devices, in turn over cells, meshes and ways, and the other settings: in
one process with 8 virtual devices.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from braintrace.rules import ALGORITHMS

TESTS = Path(__file__).parents[1]
SAME = 1e-10


@pytest.fixture(scope="module")
def measured():
    paths = [str(TESTS), os.environ.get("PYTHONPATH", "")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-m", "sharding", "--quick", "--json"]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-3000:]
    rules, settings = json.loads(ran.stdout.splitlines()[-1])
    return {row["rule"]: row for row in rules}, settings


@pytest.fixture(scope="module")
def settings(measured):
    return measured[1]


@pytest.mark.parametrize("rule", sorted(ALGORITHMS))
def test_a_rule_on_a_mesh_is_that_on_one_device(measured, rule):
    row = next(row for row in measured[0].values() if ALGORITHMS[row["rule"]] is ALGORITHMS[rule])
    assert not row["failed"]
    if not row["refused"]:
        assert max(row["gradient"], row["state"], row["losses"]) < SAME
        # XLA may divide more where nothing is said
        assert row["bytes"] <= row["planned"] <= row["total"]
        assert row["bytes"] == row["planned"] or row["way"] == "xla"
        assert not row["gathered"]  # nothing as large as a trace
        if (row["mesh"], row["way"], row["why_not"]) == ("8x1", "by device", ""):
            assert row["sent"] == {"all-reduce": 1}


def test_the_traces_of_a_device_are_its_share(measured):
    """On 8x1 that is an eighth, but for what is held whole."""
    for row in measured[0].values():
        if not row["refused"] and row["mesh"] == "8x1":
            assert row["planned"] == (row["total"] - row["whole"]) // 8 + row["whole"]


def test_masks_resets_and_aux_by_device(settings):
    assert settings["masks_and_resets"] < SAME


def test_the_gradient_is_summed_once_where_losses_are_of_samples(settings):
    losses = settings["losses"]
    assert all(off < SAME for off, _ in losses.values())
    assert losses["each"][1] == 1
    assert all(count > 1 for name, (_, count) in losses.items() if name != "each")  # as XLA divides


def test_samples_that_meet_stay_together(settings):
    off, why = settings["meeting_cell"]
    assert off < SAME
    assert "samples meet" in why


def test_inside_shard_map(settings):
    assert max(settings["inside_shard_map"].values()) < SAME


def test_steps_on_explicit_axes(settings):
    off, specs = settings["explicit_steps"]
    assert off < SAME
    assert all("data" in spec for spec in specs)


def test_random_numbers_do_not_depend_on_the_mesh(settings):
    off, of_another_key = settings["random_numbers"]
    assert off < SAME < 0.01 < of_another_key


def test_a_budget_is_that_of_a_device(settings):
    whole, each, (above, below) = settings["budget"]
    assert each < whole / 4
    assert above == ""
    assert "needs more memory than the budget" in below


def test_divided_traces_are_made_in_place(settings):
    made, whole = settings["made_in_place"]
    assert made < whole / 7


@pytest.mark.parametrize("module", ["nnx_module", "brainstate_module"])
def test_modules_with_state_of_their_own(settings, module):
    off, devices = settings[module]
    assert off < SAME
    assert devices == [8]


def test_equinox_modules(settings):
    assert settings["equinox_module"] < SAME


def test_bad_calls(settings):
    said = settings["bad_calls"]
    assert said.pop("twice").startswith("Samples and neurons are divided along different axes")
    assert all(message.startswith("Invalid") for message in said.values())


def test_the_kernel_runs_shard_by_shard(settings):
    in_use, programs = settings["kernel"]
    assert all(there == in_use for there in programs.values())
