"""The comparison of all algorithms, from the command line."""

import pytest

from braintrace._cli import main
from braintrace._compare import CELLS, measure


def test_the_table_has_every_algorithm(capsys):
    assert (
        main(
            [
                "compare",
                "--cell",
                "three_lif",
                "--neurons",
                "5",
                "--batch",
                "2",
                "--steps",
                "4",
                "--inputs",
                "3",
            ]
        )
        == 0
    )
    shown = capsys.readouterr().out
    for name in (
        "BPTT",
        "d_rtrl",
        "pp_prop",
        "eprop",
        "ostl_recurrent",
        "otpe (approx)",
        "ottt",
        "osttp",
        "three_factor",
        "instantaneous",
        "etlp",
        "decolle",
        "dni",
        "sltt",
        "rflo",
    ):
        assert f"\n{name}" in shown


def test_planned_and_allocated_bytes_agree_and_exact_means_bptt():
    rows = measure(CELLS["gru"](3, 5, 2, 2), 3, 2, 6, repeats=1)
    measured = [r for r in rows if not r.note]
    assert len(measured) >= 8
    assert all(r.planned == r.allocated for r in measured)
    exact = [r for r in measured if r.exact[0] == r.exact[1]]
    assert {r.name for r in exact} == {
        "BPTT",
        "ostl_recurrent",
        "random_rtrl",  # its other 4 units are all there are
        "rtrl",
    }
    assert all(r.cosine == pytest.approx(1, abs=1e-5) for r in exact)
    assert min(r.cosine for r in measured) < 0.9


def test_traces_beyond_the_budget_are_not_allocated():
    rows = measure(CELLS["rnn"](3, 5, 2, 2), 3, 2, 3, repeats=1, budget=500)
    assert any("not run" in r.note for r in rows)


def test_an_unknown_cell_is_named(capsys):
    assert main(["compare", "--cell", "hopfield"]) == 2
    assert "rnn, gru" in capsys.readouterr().err
