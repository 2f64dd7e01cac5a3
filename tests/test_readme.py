"""The examples of the README run, in the order in which they stand, and do what the text says; so
do the rows of its tables.
"""

import re

import jax
import jax.numpy as jnp
import pytest

import braintrace
from migration.minimal import LEAK, PLAIN, Given, I, N, O, distance, drawn, oracle, through
from migration.page import ROOT, Rows
from migration.steps import fires, leaky, recurrent, two_layers
from zoo._interpret import run_once

README = (ROOT / "README.md").read_text()
WORDS = Rows("What the report says of a gradient", ROOT / "README.md")
ALGORITHMS = Rows("Algorithms", ROOT / "README.md")
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
        assert (ROOT / link).is_file(), link


def test_figures_of_speed_are_those_of_the_benchmarks():
    said = re.search(
        r"takes ([\d.]+) times the time of\s+BPTT for a GRU and ([\d.]+) times .*?"
        r"that is (\d+) and (\d+) times as fast",
        README,
        re.DOTALL,
    )
    assert said
    text = (ROOT / "benchmarks" / "README.md").read_text()
    for cell, ratio, speed in (("gru", said[1], said[3]), ("lif", said[2], said[4])):
        [block] = re.findall(
            rf"^### {cell}, N=512, B=32, .*?(?=^###)", text, re.MULTILINE | re.DOTALL
        )
        row = re.search(r"^\| d_rtrl \| [^|]*\| ([\d.]+) \| [^|]*\| ([\d.]+) ", block, re.MULTILINE)
        assert row and row[1] == ratio and abs(float(row[2]) - float(speed)) <= 0.5, row


# The words of the report
# ------------------------------------------------------------------------------------------------

DEEP = {"E": (I, I), "W": (I, N), "U": (N, N), "o": (N, O), "n": (N,), "f": (N,)}


def deep(p, h, x, ops, old=lambda v: v, mix=lambda v: v):
    """A layer in front of a recurrent one; the readout is exact, `f` frozen and `n` not read."""
    below = jnp.tanh(ops.matmul(x, p["E"]))
    drive = ops.matmul(mix(below), p["W"]) + ops.matmul(old(h["h"]), p["U"])
    h = LEAK * h["h"] + jnp.tanh(drive + p["f"])
    return {"h": h}, h @ p["o"]


def given(shapes, carry=(("h", (2, N)),)):
    params = {k: drawn(*s, seed=i) for i, (k, s) in enumerate(shapes.items())}
    start = {k: drawn(*s, seed=9 + i) for i, (k, s) in enumerate(carry)}
    return Given(params, start, drawn(4, 2, I, seed=20, scale=1.0), drawn(4, 2, O, seed=21))


def learned(step, data, algorithm, **options):
    """A learner, and its gradient in windows of 3."""
    learner = braintrace.compile(
        lambda p, h, x: step(p, h, x, PLAIN),
        algorithm,
        data.xs[0],
        params=data.params,
        carry=data.carry,
        **options,
    )
    state, loss = learner.init(data.params, data.carry), lambda out, y: jnp.sum((out - y) ** 2)
    options = {"loss_fn": loss, "reduction": "sum", "window": 3}
    if algorithm in ("osttp", "etlp", "decolle"):
        options["y_target"] = data.ys
    if algorithm == "three_factor":
        options["modulator"] = jnp.ones(data.ys.shape[:2])
    return learner, learner.etrace_grad(data.params, state, data.xs, data.ys, **options)[0]


@pytest.fixture(scope="module")
def said():
    data = given(DEEP)
    learner, found = learned(deep, data, "d_rtrl", trainable=[k for k in DEEP if k != "f"])
    return learner, found, run_once(through(deep), data), run_once(oracle(deep), data)


def test_every_row_has_a_test():
    WORDS.check()
    ALGORITHMS.check()


@pytest.mark.parametrize("word", WORDS.page)
def test_word(word, said):
    names = WORDS.tests[word](*said)
    assert {str(said[0].graph.exactness(f"['{name}']")) for name in names} == {word}


@WORDS("exact")
def exact(learner, found, bptt, own):
    assert distance(found["o"], bptt["o"]) < 1e-12
    return ["o"]


@WORDS("approximate")
def approximate(learner, found, bptt, own):
    assert "recurrent" in str(learner.report)
    for name in ("W", "U"):
        assert distance(found[name], own[name]) < 1e-12 < 0.01 < distance(own[name], bptt[name])
    return ["W", "U"]


@WORDS("instantaneous")
def instantaneous(learner, found, bptt, own):
    assert distance(found["E"], own["E"]) < 1e-12 < 0.01 < distance(own["E"], bptt["E"])
    return ["E"]


@WORDS("frozen")
def frozen(learner, found, bptt, own):
    assert found["f"] is None
    return ["f"]


@WORDS("unused")
def unused(learner, found, bptt, own):
    assert not jnp.any(found["n"])
    return ["n"]


# When an algorithm is exact
# ------------------------------------------------------------------------------------------------

LAYER = {"W": (I, N), "o": (N, O)}
RECURRENT = LAYER | {"U": (N, N)}
STACK = (("v", (2, N)), ("y", (2, O)))


def differences(step, data, algorithm, **options):
    """How far each gradient is from BPTT."""
    found, right = learned(step, data, algorithm, **options)[1], run_once(through(step), data)
    return {name: distance(found[name], right[name]) for name in right}


def is_exact(step, shapes, algorithm, carry=(("h", (2, N)),), **options):
    off = differences(step, given(shapes, carry), algorithm, **options)
    return {name: value < 1e-10 for name, value in off.items()}


ALL, READOUT = {"W": True, "o": True}, {"W": False, "o": True}


@pytest.mark.parametrize("name", ALGORITHMS.page)
def test_when_an_algorithm_is_exact(name):
    ALGORITHMS.tests[name]()


@ALGORITHMS("`d_rtrl`")
def d_rtrl():
    assert is_exact(leaky, LAYER, "d_rtrl") == ALL
    assert is_exact(recurrent, RECURRENT, "d_rtrl") == READOUT | {"U": False}


@ALGORITHMS("`pp_prop` (`es_d_rtrl`)")
def pp_prop():
    assert is_exact(leaky, LAYER, "pp_prop", decay_or_rank=LEAK) == READOUT
    near, far = (
        differences(leaky, given(LAYER), "es_d_rtrl", decay_or_rank=d)["W"] for d in (LEAK, 0.1)
    )
    assert near < far


@ALGORITHMS("`eprop`")
def eprop():
    options = {"carry": STACK, "kappa_filter_decay": LEAK}
    assert is_exact(two_layers, LAYER, "eprop", **options) == ALL
    assert is_exact(two_layers, LAYER, "eprop", carry=STACK, kappa_filter_decay=0.5) == READOUT


@ALGORITHMS("`ostl_recurrent`")
def ostl_recurrent():
    assert is_exact(recurrent, RECURRENT, "ostl_recurrent") == ALL | {"U": True}
    two = {"E": (I, N), **RECURRENT, "W": (N, N)}
    carry = (("g", (2, N)), ("h", (2, N)))
    assert is_exact(stacked, two, "ostl_recurrent", carry)["E"] is False  # not of two


def stacked(p, h, x, ops):
    g = LEAK * h["g"] + jnp.tanh(ops.matmul(x, p["E"]))
    above, out = recurrent(p, {"h": h["h"]}, g, ops)
    return {"g": g, "h": above["h"]}, out


@ALGORITHMS("`ostl_feedforward`")
def ostl_feedforward():
    assert is_exact(leaky, LAYER, "ostl_feedforward") == ALL
    assert is_exact(two_layers, LAYER, "ostl_feedforward", STACK) == READOUT  # its readout leaks


@ALGORITHMS("`otpe`")
def otpe():
    assert is_exact(two_layers, LAYER, "otpe", STACK, leak=LEAK) == ALL
    assert is_exact(two_layers, LAYER, "otpe", STACK, leak=LEAK, mode="approx")["W"] is False


@ALGORITHMS("`ottt`")
def ottt():
    assert is_exact(fires(), LAYER, "ottt", leak=0.9) == ALL
    assert is_exact(fires(), LAYER, "ottt", leak=0.5) == READOUT


@ALGORITHMS("`osttp`")
def osttp():
    assert is_exact(fires(), LAYER, "osttp", feedback_key=0) == READOUT


@ALGORITHMS("`three_factor`")
def three_factor():
    assert is_exact(fires(), LAYER, "three_factor") == READOUT


@ALGORITHMS("`etlp`")
def etlp():
    assert is_exact(fires(), LAYER, "etlp", feedback_key=0) == READOUT


@ALGORITHMS("`decolle`")
def decolle():
    assert is_exact(fires(), LAYER, "decolle", readout_key=0) == READOUT


@ALGORITHMS("`sltt`, `instantaneous`")
def without_traces():
    for name in ("sltt", "instantaneous"):
        assert is_exact(leaky, LAYER, name) == READOUT


@ALGORITHMS("`dni`")
def dni():
    assert is_exact(leaky, LAYER, "dni") == READOUT


@ALGORITHMS("`sk_rtrl`")
def sk_rtrl():
    assert is_exact(leaky, LAYER, "sk_rtrl", rank=0) == ALL
    assert is_exact(recurrent, RECURRENT, "sk_rtrl", rank=1) == READOUT | {"U": False}
    assert is_exact(recurrent, RECURRENT, "sk_rtrl", rank=N) == ALL | {"U": True}


@ALGORITHMS("`uoro`")
def uoro():
    assert is_exact(recurrent, RECURRENT, "uoro") == READOUT | {"U": False}


@ALGORITHMS("`kf_rtrl`, `ok_rtrl`")
def of_kronecker_products():
    assert is_exact(recurrent, RECURRENT, "kf_rtrl") == READOUT | {"U": False}
    assert is_exact(recurrent, RECURRENT, "ok_rtrl", rank=2) == READOUT | {"U": False}


@ALGORITHMS("`mdgl`")
def mdgl():
    assert is_exact(leaky, LAYER, "mdgl") == ALL
    assert is_exact(recurrent, RECURRENT, "mdgl") == READOUT | {"U": False}


@ALGORITHMS("`modprop`")
def modprop():
    assert is_exact(leaky, LAYER, "modprop", leak=LEAK, taps=2) == READOUT


@ALGORITHMS("`s_tllr`")
def s_tllr():
    assert is_exact(fires(), LAYER, "s_tllr", lambda_pre=0.9) == READOUT


@ALGORITHMS("`rtrl`")
def rtrl():
    two = {"E": (I, N), **RECURRENT, "W": (N, N)}
    off = is_exact(stacked, two, "rtrl", (("g", (2, N)), ("h", (2, N))))
    assert off == ALL | {"U": True, "E": True}


@ALGORITHMS("`snap`")
def snap():
    assert is_exact(recurrent, RECURRENT, "snap", n=1) == READOUT | {"U": False}
    assert is_exact(recurrent, RECURRENT, "snap", n=2) == ALL | {"U": True}


@ALGORITHMS("`random_rtrl`")
def random_rtrl():
    assert is_exact(recurrent, RECURRENT, "random_rtrl", k=1) == READOUT | {"U": False}
    assert is_exact(recurrent, RECURRENT, "random_rtrl", k=N - 1) == ALL | {"U": True}


@ALGORITHMS("`rflo`")
def rflo():
    assert is_exact(leaky, LAYER, "rflo", random_feedback_key=0) == READOUT
