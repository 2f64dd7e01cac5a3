"""The example of several processes: they learn what one learns, and go on after one was killed."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("optax")

ROOT = Path(__file__).parents[2]
SAME = 1e-10
UPDATES, STOPPED = 8, 6  # the last checkpoint before is that of 5 updates


def run(folder, processes, result, *more):
    command = [sys.executable, str(ROOT / "examples" / "distributed.py"), "--double"]
    command += ["--processes", str(processes), "--updates", str(UPDATES)]
    command += ["--result", str(folder / result), *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=os.environ)
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The numbers of one process."""
    folder = tmp_path_factory.mktemp("alone")
    code, said = run(folder, 1, "result.npz")
    assert code == 0, said[-3000:]
    return dict(np.load(folder / "result.npz"))


def check_killed(folder, processes, alone):
    checkpoint = folder / "checkpoint.npz"
    killed = "--checkpoint", str(checkpoint), "--stop-after", str(STOPPED)
    code, _ = run(folder, processes, "none.npz", *killed)
    assert code == 3
    assert not (folder / "none.npz").exists()
    with np.load(checkpoint) as held:
        assert len(held["losses"]) == 5
    code, said = run(folder, processes, "result.npz", *killed[:2])
    assert code == 0, said[-3000:]
    found = dict(np.load(folder / "result.npz"))
    assert set(found) == set(alone)
    for name, value in alone.items():
        off = np.linalg.norm(found[name] - value) / np.linalg.norm(value)
        assert off < SAME, name
    assert len(found["losses"]) == UPDATES
    # a control: other updates have other numbers
    assert abs(found["losses"][-1] - alone["losses"][0]) > 1e-6


def test_two_processes_one_of_which_is_killed(tmp_path, alone):
    check_killed(tmp_path, 2, alone)


@pytest.mark.skipif(os.environ.get("PROCESSES") != "4", reason="PROCESSES=4 runs it")
def test_four_processes_one_of_which_is_killed(tmp_path, alone):
    check_killed(tmp_path, 4, alone)
