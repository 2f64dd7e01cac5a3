"""The demo: its short form as a user starts it, and the pieces that the long form adds."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("optax")

from braintrace import _cli
from braintrace._demo._console import PlainBar, table
from braintrace._demo._fidelity import Fidelity, cosine
from braintrace._demo._methods import Method
from braintrace._demo._run import RECIPES
from braintrace._demo._training import Trainer, batches, new_weights, scorer
from braintrace.tasks import japanese_vowels


def test_quick_form_prints_the_table_and_saves_the_figure(tmp_path, users_environment):
    out = tmp_path / "figure.png"
    command = [sys.executable, "-m", "braintrace", "demo", "--quick", "--out", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=users_environment
    )
    assert done.returncode == 0, done.stderr
    assert "\r" not in done.stdout  # no bar where nobody watches
    rows = re.findall(
        r"^GRU +(.+?)  +(\d+\.\d) %.* (\d+\.\d) MB +(\d+\.\d) MB +(.+)$", done.stdout, re.MULTILINE
    )
    assert [row[0] for row in rows] == [method.value for method in Method]
    online, bptt, readout = ([float(v) for v in row[1:4]] for row in rows)
    assert min(online[0], bptt[0]) > readout[0]
    assert online[2] < 1.1 * online[1] + 0.1  # memory that does not grow; printed to 0.1 MB
    assert bptt[2] > 50 * bptt[1]  # control: memory that does
    assert [row[4] for row in rows] == ["4 approximate, 2 exact", "6 exact", "2 exact"]
    assert out.read_bytes().startswith(b"\x89PNG")


def test_spiking_network_learns_along_the_gradient_of_bptt():
    data, recipe = japanese_vowels(), dataclasses.replace(RECIPES[1], epochs=2)
    trainers = [Trainer(recipe, method) for method in (Method.ONLINE, Method.BPTT)]
    found = Fidelity(*trainers).cosines(new_weights(recipe, 0), data.train, 0)
    assert found == pytest.approx(dict.fromkeys(found, 1.0), abs=0.15)
    assert all(
        found[name] == pytest.approx(1, abs=1e-5)
        for name, kind in trainers[0].certificate.items()
        if kind == "exact"
    )
    assert any(
        found[name] < 0.9999
        for name, kind in trainers[0].certificate.items()
        if kind == "approximate"
    )
    done = trainers[0].run(data.train, 0, scorer(recipe, data.test), 1, lambda *_: None)
    assert done.losses[1] < done.losses[0]
    assert done.accuracies[2] > 0.5  # chance: 0.11


def test_methods_start_alike_and_see_the_same_batches():
    recipe, data = RECIPES[0], japanese_vowels().train
    once, again = (list(batches(recipe, data, 3, 5)) for _ in range(2))
    for (frames, weight, label), other in zip(once, again, strict=True):
        assert all(
            np.array_equal(a, b) for a, b in zip((frames, weight, label), other, strict=True)
        )
        assert not frames[weight == 0].any()
        assert weight.sum() == pytest.approx(1, abs=1e-5)
    assert not np.array_equal(once[0][0], next(batches(recipe, data, 3, 6))[0])


def test_cosine():
    assert cosine(np.array([[1.0, 2.0]]), np.array([[2.0, 4.0]])) == pytest.approx(1)
    assert cosine(np.array([1.0, 0.0]), np.array([0.0, 3.0])) == pytest.approx(0)
    assert np.isnan(cosine(np.zeros(2), np.ones(2)))


def test_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr(_cli.importlib.util, "find_spec", lambda name: None)
    assert _cli.main(["demo"]) == 2
    assert "pip install 'braintrace[demo]'" in capsys.readouterr().err


def test_says_that_the_folder_is_missing(tmp_path, capsys):
    assert _cli.main(["demo", "--out", str(tmp_path / "absent" / "figure.png")]) == 2
    assert "--out" in capsys.readouterr().err


def test_plain_bar_leaves_one_line(capsys):
    bar = PlainBar()
    bar.start("GRU", 4)
    bar.show(2, "loss 0.5")
    bar.finish("done")
    printed = capsys.readouterr().out
    assert f"[{'#' * 12}{'.' * 12}]" in printed
    assert printed.rpartition("\x1b[2K")[2] == "GRU  done\n"


def test_table_aligns():
    assert (
        table([("a", "b"), ("long", "1"), ("x", "22")], right=(1,))
        == "a      b\n--------\nlong   1\nx     22"
    )
