"""Every algorithm on every case: one gradient by every way, a certificate that is true, or an error
that says why not.

By every way: in windows of one step, of three, of the default size, and step by step. The gradient
of a sequence with resets is the sum of those of its parts. A parameter is certified exact if and
only if its gradient is that of BPTT; under D-RTRL all gradients are those of the case's oracle.
"""

import dataclasses
import functools
import itertools
import os
from typing import Any

import jax
import numpy as np
import pytest

import braintrace

from . import CASES, EXACT, bptt, tolerance
from ._algorithms import by_parts, by_sequence, by_step, signals
from ._interpret import run_once
from .algorithms import ALGORITHMS, DRAWN, MODEST, REFUSED

T = 6
KEY = 7
#: Pairs after which JAX forgets what it has traced.
TOGETHER = 100
TESTS = itertools.count(1)

REFUSALS = {
    (algorithm, case): words
    for algorithm, kinds in REFUSED.items()
    for words, cases in kinds.items()
    for case in cases.split()
}


#: All pairs; of another setting of a rule every fourth case, unless MATRIX=all.
PAIRS = [
    (name, algorithm)
    for k, name in enumerate(CASES)
    for algorithm, chosen in ALGORITHMS.items()
    if not chosen.another or k % 4 == 0 or os.environ.get("MATRIX") == "all"
]


@functools.cache
def data(name):
    """params, carry, xs, ys and signals of a case."""
    case, key = CASES[name], jax.random.key(KEY)
    params, carry, xs, ys = case.make(key, T, case.B)
    return params, carry, xs, ys, signals(key, ys)


def example(name, algorithm):
    """The data as an algorithm takes them."""
    *given, every = data(name)
    return *given, {k: v for k, v in every.items() if k == ALGORITHMS[algorithm].signal}


@functools.cache
def truth(name, oracle=False):
    """BPTT through the cell or through the oracle."""
    case = CASES[name]
    return run_once(functools.partial(bptt, case.oracle if oracle else case.cell), *data(name)[:4])


@dataclasses.dataclass
class Measured:
    """What one algorithm makes of one case."""

    case: Any
    gradients: dict[str, Any]  # by way
    certificate: dict[str, str]  # by parameter
    whole: Any = None  # with resets and a mask
    parts: Any = None  # the sum of what lies between the resets


def distances(a, b):
    """Relative distance of each gradient; of two zeros it is zero."""

    def off(a, b):
        size = np.linalg.norm(b)
        return float(np.linalg.norm(a - b) / (size if size > 0 else 1))

    assert set(a) == set(b)
    return {name: off(np.asarray(a[name]), np.asarray(b[name])) for name in b}


def is_same(a, b, within):
    return all(off < within for off in distances(a, b).values())


def reset_times(samples, linear):
    """A step for each sample, after the first; one for all where samples do not add up."""
    return np.array([2 + (2 * b + 2) % (T - 2) * linear for b in range(samples)])


def shifted(value, starts, axis=0):
    """A sequence whose samples begin at their own steps; what comes round is to be masked."""
    steps = (np.arange(T)[:, None] + starts) % T
    batch_second = np.moveaxis(np.asarray(value), axis + 1, 1)
    moved = batch_second[steps, np.arange(len(starts))]
    return np.moveaxis(moved, 1, axis + 1)


def asks_for_state(algorithm, name):
    """Whether a driver is asked for the state at the end. Its last window is otherwise a program of
    its own: so it is in every fourth pair, unless MATRIX=all, and in the default window of all.
    """
    number = list(CASES).index(name) + list(ALGORITHMS).index(algorithm)
    return number % 4 != 0 and os.environ.get("MATRIX") != "all"


def measure_resets(measured, learner, given, linear=True, state=False):
    """The gradient with resets and a mask, and those of the parts that the resets make."""
    case = measured.case
    params, carry, xs, ys, signals = given
    starts = reset_times(case.B, linear)
    steps = np.arange(T)[:, None]
    none, reset = np.zeros((T, case.B), bool), steps == starts
    first_step, there = np.zeros(case.B, np.int32), starts.astype(np.int32)
    mask = np.random.default_rng(KEY).uniform(0.5, 1.5, (T, case.B))
    mask[1, 0] = 0.0
    axis = case.axes[1] if isinstance(case.axes, tuple) else case.axes
    later = [xs, ys, signals, mask]
    along = lambda axis, v: jax.tree.map(lambda v: shifted(v, starts, axis), v)
    later = [along(axis if v is xs else 0, v) for v in later]
    run = by_parts(learner, given, 3, state)
    measured.gradients["window of 3"] = run(*given, none, np.ones_like(mask), first_step)
    measured.whole = run(*given, reset, mask, first_step)
    first = run(*given, none, np.where(steps < starts, mask, 0), first_step)
    ended = np.where(steps < T - starts, later[3], 0)
    second = run(params, carry, *later[:3], none, ended, there)
    measured.parts = jax.tree.map(np.add, first, second)


def measure(algorithm, name):
    """Raises what `compile` and `etrace_grad` raise."""
    case, chosen, given = CASES[name], ALGORITHMS[algorithm], example(name, algorithm)
    learner = chosen.learner(case, given[0], given[1], given[2][0])
    certificate = {row.path[2:-2]: str(row.exactness) for row in learner.graph.parameters}
    measured, state = Measured(case, {}, certificate), asks_for_state(algorithm, name)
    measured.gradients["window of 1"] = by_sequence(learner, given, 1, state)(*given)
    if learner.rule.carrier.longest_window == 1:  # one program for all windows
        measured.gradients["default window"] = measured.gradients["window of 1"]
    else:
        measured.gradients["default window"] = by_sequence(learner, given, None)(*given)
    if chosen.by_step:
        measured.gradients["step by step"] = by_step(learner, given)(*given)
    if case.restarts:
        measure_resets(measured, learner, given, chosen.linear, state)
    else:
        measured.gradients["window of 3"] = by_sequence(learner, given, 3, state)(*given)
    if case.twin is not None and (algorithm, name) not in DRAWN:
        twin = chosen.learner(case, given[0], given[1], given[2][0], cell=case.twin)
        measured.gradients["twin"] = by_sequence(twin, given, None)(*given)
    return measured


def check_ways_agree(measured):
    first = measured.gradients["window of 1"]
    for way, gradients in measured.gradients.items():
        off = distances(gradients, first)
        assert is_same(gradients, first, tolerance(measured.case)), f"{way}: {off}"


def check_resets_begin_new_sequences(measured):
    if measured.whole is not None:
        off = distances(measured.whole, measured.parts)
        assert is_same(measured.whole, measured.parts, tolerance(measured.case)), off


def check_gradients_are(measured, right):
    off = distances(measured.gradients["default window"], right)
    assert is_same(measured.gradients["default window"], right, tolerance(measured.case)), off


def check_certificate(measured, right, modest=()):
    off = distances(measured.gradients["default window"], right)
    equal = {name: d < tolerance(measured.case) for name, d in off.items()}
    said = {name: kind == EXACT for name, kind in measured.certificate.items()}
    wrong = {
        name: (measured.certificate[name], off[name]) for name in off if equal[name] != said[name]
    }
    assert set(wrong) == set(modest), wrong
    assert not any(said[name] for name in modest)


def check_refusal(algorithm, name, words):
    with pytest.raises(braintrace.BrainTraceError) as refused:
        measure(algorithm, name)
    assert words in str(refused.value), str(refused.value)


@pytest.fixture(autouse=True)
def few_programs():
    """What JAX keeps of a few hundred traced programs is gigabytes."""
    yield
    if next(TESTS) % TOGETHER == 0:
        jax.clear_caches()


@pytest.mark.parametrize(("name", "algorithm"), PAIRS)
def test_matrix(algorithm, name):
    if (words := REFUSALS.get((algorithm, name))) is not None:
        check_refusal(algorithm, name, words)
        return
    measured = measure(algorithm, name)
    check_ways_agree(measured)
    check_resets_begin_new_sequences(measured)
    if algorithm == "d_rtrl":
        check_gradients_are(measured, truth(name, oracle=True))
    check_certificate(measured, truth(name), MODEST.get(algorithm, {}).get(name, "").split())


def test_refusals_name_cases():
    assert {name for _, name in REFUSALS} <= set(CASES)
    assert set(REFUSED) | set(MODEST) <= set(ALGORITHMS)


@pytest.mark.parametrize(
    ("name", "like"), [("ostl_feedforward", "d_rtrl"), ("es_d_rtrl", "pp_prop"), ("rflo", "eprop")]
)
def test_the_other_names_stand_for_parts_of_the_matrix(name, like):
    """Their learners consist of the same carrier and edits."""
    case, (params, carry, xs, _, _) = CASES["alif"], data("alif")
    options = {
        "ostl_feedforward": ({}, {}),
        "es_d_rtrl": ({"decay_or_rank": 0.9},) * 2,
        "rflo": ({"random_feedback_key": 0}, {"feedback": "random", "random_feedback_key": 0}),
    }[name]
    rules = [
        braintrace.compile(case.cell, n, xs[0], params=params, carry=carry, **o).rule
        for n, o in zip((name, like), options, strict=True)
    ]
    assert rules[0].carrier == rules[1].carrier
    assert [type(e) for e in rules[0].edits] == [type(e) for e in rules[1].edits]


# Controls: each check notices


@functools.cache
def sound():
    return measure("ottt", "alif")


def test_control_another_rule_is_not_the_oracle():
    check_ways_agree(sound())
    for right in (truth("alif"), truth("alif", oracle=True)):
        with pytest.raises(AssertionError):
            check_gradients_are(sound(), right)


def test_control_a_wrong_certificate():
    certificate = dict.fromkeys(sound().certificate, EXACT)
    with pytest.raises(AssertionError):
        check_certificate(dataclasses.replace(sound(), certificate=certificate), truth("alif"))
    modest = dict.fromkeys(sound().certificate, "approximate")
    with pytest.raises(AssertionError, match="'o'"):
        check_certificate(dataclasses.replace(sound(), certificate=modest), truth("alif"))


@pytest.mark.parametrize("way", ["window of 3", "default window", "step by step"])
def test_control_one_way_that_differs(way):
    off = {name: v * (1 + 1e-8) for name, v in sound().gradients[way].items()}
    with pytest.raises(AssertionError, match=way):
        check_ways_agree(dataclasses.replace(sound(), gradients={**sound().gradients, way: off}))


def test_control_traces_that_are_not_zero_at_the_start():
    """A learner whose windows agree with each other and with nothing else."""
    case, given = CASES["alif"], example("alif", "d_rtrl")
    learner = ALGORITHMS["d_rtrl"].learner(case, *given[:2], given[2][0])
    clean = learner.init

    def soiled(params, carry, **options):
        state = clean(params, carry, **options)
        traces = jax.tree.map(lambda v: v + 0.1, state.traces)
        return braintrace.State(state.carry, traces, state.steps)

    learner.init = soiled
    ways = {f"window of {k}": by_sequence(learner, given, k)(*given) for k in (1, 3)}
    measured = Measured(case, {**ways, "default window": ways["window of 3"]}, {})
    check_ways_agree(measured)
    with pytest.raises(AssertionError):
        check_gradients_are(measured, truth("alif", oracle=True))


def test_control_a_reset_is_not_nothing():
    given = example("alif", "d_rtrl")
    learner = ALGORITHMS["d_rtrl"].learner(CASES["alif"], *given[:2], given[2][0])
    measured = Measured(CASES["alif"], {}, {})
    measure_resets(measured, learner, given)
    check_resets_begin_new_sequences(measured)
    without = dataclasses.replace(measured, parts=measured.gradients["window of 3"])
    with pytest.raises(AssertionError):
        check_resets_begin_new_sequences(without)
