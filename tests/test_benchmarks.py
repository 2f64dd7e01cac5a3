"""The benchmark's harness, without the peer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks import plan
from benchmarks.rules.report import overview

ROOT = Path(__file__).parents[1]


def harness(module, folder, *options):
    command = [sys.executable, "-m", module, "--rounds", "1", "--folder", str(folder), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    done = harness("benchmarks", folder, "--tiny", "--no-peer")
    assert done.returncode == 0, done.stderr
    return folder, json.loads((folder / "tiny.json").read_text()), done.stdout


def test_every_method_of_ours_is_timed(run):
    cases = run[1]["cases"].values()
    rows = {key: row for case in cases for key, row in case["rows"].items()}
    assert {
        "bptt",
        "d_rtrl",
        "d_rtrl, no end trace",
        "d_rtrl, online",
        "d_rtrl, module",
        "pp_prop",
        "ottt",
        "otpe",
    } <= set(rows)
    for key, row in rows.items():
        assert "error" not in row, (key, row)
        assert len(row["seconds"]) == 1 and row["seconds"][0] > 0
        assert row["traces"] > 0 or key in ("bptt", "d_rtrl, no end trace")


def test_table_and_plot(run):
    folder, data, printed = run
    text = (folder / "tiny.md").read_text()
    assert text in printed
    for title, case in data["cases"].items():
        table = text.split(f"### {title}")[1].split("###")[0]
        assert [
            line.split(" | ")[0].strip("| ")
            for line in table.split("---")[-1].strip().splitlines()[1:]
        ] == list(case["rows"])
    assert (folder / "tiny.png").stat().st_size > 1000


def test_an_interrupted_run_goes_on(run, tmp_path):
    kept, dropped = run[1]["cases"]
    cut = json.loads(json.dumps(run[1]))
    del cut["cases"][dropped]
    (tmp_path / "tiny.json").write_text(json.dumps(cut))
    done = harness("benchmarks", tmp_path, "--tiny", "--no-peer", "--resume")
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "tiny.json").read_text())["cases"]
    assert again[kept] == run[1]["cases"][kept] and set(again) == {kept, dropped}


def test_a_learner_under_the_users_map(tmp_path):
    done = harness("benchmarks.mapped", tmp_path, "--tiny", "--no-peer")
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "mapped.json").read_text())["cases"].popitem()[1]["rows"]
    assert list(rows) == ["d_rtrl, mapped", "d_rtrl, batch_size"]
    assert all(key in done.stdout and row["seconds"][0] > 0 for key, row in rows.items())


def test_networks_of_brain_size(tmp_path):
    pytest.importorskip("brainevent")
    done = harness("benchmarks.connectome", tmp_path, "--tiny")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "connectome.json").read_text())
    assert set(found["fly"]["methods"]) == {"pp_prop", "d_rtrl, window 1"}
    assert len(found["learning"]["losses"]) == 3 and "updates: loss" in done.stdout
    assert (tmp_path / "connectome.png").stat().st_size > 1000
    again = harness("benchmarks.connectome", tmp_path, "--tiny", "--resume")
    assert again.returncode == 0 and again.stdout == done.stdout


def test_no_accelerator_is_said(tmp_path):
    done = harness("benchmarks.accelerator", tmp_path)
    assert done.returncode == 2 and "only a CPU" in done.stderr


def test_the_script_for_accelerators(tmp_path):
    done = harness("benchmarks.accelerator", tmp_path, "--tiny")
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "accelerator-cpu.json").read_text())
    assert all(row["ok"] for row in data["smoke"]["rows"])
    assert sum(row["control"] is not None for row in data["smoke"]["rows"]) == 3
    [(title, case)] = data["cases"].items()
    assert all(row["seconds"][0] > 0 for row in case["rows"].values())
    text = (tmp_path / "accelerator-cpu.md").read_text()
    assert text in done.stdout
    for part in ("### Oracles in float32", "against memory", f"### {title}", "| d_rtrl, online |"):
        assert part in text
    assert (tmp_path / "accelerator-cpu.png").stat().st_size > 1000


def test_what_an_accelerator_is_asked_first():
    """The most informative sizes, and none twice; a limit of time leaves out the largest."""
    works = plan.accelerator()
    sizes = list(dict.fromkeys((w.case.neurons, w.case.samples) for w in works))
    assert set(sizes) == {(n, b) for n in (128, 512, 2048) for b in (1, 32, 256)}
    assert len(works) == 2 * len(sizes) and sizes[0] == (512, 32)
    assert {n for n, _ in sizes[-3:]} == {2048}


@pytest.mark.parametrize(
    ("arguments", "figures"),
    [
        (("analysis", "50", "2", "time"), {"seconds", "peak", "growth"}),
        (("analysis", "50", "2", "memory"), {"seconds", "peak", "growth"}),
        (("first_call", "rnn", "4"), {"compile", "gradient"}),
    ],
)
def test_what_a_compilation_costs(arguments, figures):
    command = [sys.executable, "-m", "benchmarks.compile_time", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert set(found) == figures
    assert (found.get("peak", 0) > 0) == (arguments[-1] == "memory")


def test_rules_are_measured_and_a_run_goes_on(tmp_path):
    only = ["-m", "benchmarks.rules", "--short", "--folder", str(tmp_path), "--only", "tanh"]
    run = lambda *methods: subprocess.run(
        [sys.executable, *only, *methods], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    first = run("rtrl", "tbptt")
    assert first.returncode == 0, first.stderr
    second = run("rtrl", "d_rtrl", "tbptt")
    assert "rtrl" in first.stderr and "tanh, rtrl" not in second.stderr  # it is there already
    rows = json.loads((tmp_path / "short.json").read_text())["rows"]["tanh"]
    assert all(np.allclose(found, 1, atol=1e-4) for found in rows["rtrl"]["cosine"].values())
    assert all(np.mean(found) < 0.95 for found in rows["d_rtrl"]["cosine"].values())  # control
    assert all(np.isfinite(found).all() for row in rows.values() for found in row["nmse"].values())
    assert "| `d_rtrl` |" in second.stdout and (tmp_path / "short.png").exists()


def test_the_page_of_algorithms_shows_what_was_measured():
    found = json.loads((ROOT / "benchmarks/rules/results.json").read_text())
    table = overview(found)
    assert table.strip() in (ROOT / "docs/algorithms/index.md").read_text()
    assert len(table.splitlines()) > 10
