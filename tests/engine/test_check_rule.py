"""`check_rule`: rules of the library keep the laws, and a wrong one is caught by the law that it
breaks.
"""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

import braintrace
from braintrace import checks, rules
from braintrace.checks._rule_report import LAWS
from braintrace.checks._rule_trial import Trial

#: A rule, its options, and cells to check it on here.
SOUND = {
    "d_rtrl": ({}, ["leaky"]),
    "pp_prop": ({"decay_or_rank": 0.8}, ["recurrent"]),
    "eprop": ({"kappa_filter_decay": 0.7}, ["lif"]),
    "ostl_recurrent": ({}, ["recurrent"]),
    "ottt": ({"leak": 0.8}, ["leaky"]),
    "otpe": ({"leak": 0.8}, ["two layers"]),
    "rtrl": ({}, ["two layers"]),
    "rflo": ({"random_feedback_key": 0}, ["lru"]),
    "osttp": ({"feedback_key": 0}, ["lif"]),
    "three_factor": ({}, ["lif"]),
    "uoro": ({}, ["leaky"]),
}


@pytest.mark.parametrize("name", SOUND)
def test_rules_of_the_library_keep_the_laws(name):
    options, cells = SOUND[name]
    report = checks.check_rule(name, cells, **options)
    assert report.ok and not report.refused
    assert {row.law for row in report.rows} == set(LAWS)


def algorithm(trace, title="Tested"):
    """An algorithm of one carrier."""

    @dataclasses.dataclass(frozen=True)
    class Tested(rules.Algorithm):
        name = title

        def parts(self):
            return rules.Rule(title, trace)

    return Tested


class Fading(rules.StepTrace):
    """A sound one."""

    approximation = "its traces fade"

    def moved(self, old, carried, added):
        return 0.5 * carried + added


class Kept(Fading):
    """Its trace forgets by itself, and a reset leaves it as it is."""

    def moved(self, old, carried, added):
        return 0.5 * old + added

    def reset(self, graph, traces, marks):
        return traces


class Proud(Fading):
    """It says nothing of what it leaves out."""

    approximation = ""


class Signs(Fading):
    """It looks at the sign of the learning signal alone."""

    def contract(self, graph, traces, entry, now=None):
        return super().contract(graph, traces, [jnp.sign(a) for a in entry], now)


class Mixed(Fading):
    """Every sample has the mean of the samples' traces."""

    def moved(self, old, carried, added):
        total = 0.5 * carried + added
        return jnp.broadcast_to(total.mean(1, keepdims=True), total.shape)


class Silent(Fading):
    """Its report says that there are no traces."""

    def of_site(self, traces, site):
        return []


class Twice(Fading):
    """Its report counts all traces at every weight."""

    def of_site(self, traces, site):
        return traces


class Growing(Fading):
    """Its plan is that of half the numbers."""

    def zeros(self, graph):
        half = lambda v: dataclasses.replace(v, dtype=jnp.float32)
        return jax.tree.map(
            half, super().zeros(graph), is_leaf=lambda v: isinstance(v, rules.Zeros)
        )

    def advance(self, graph, before, local):
        return jax.tree.map(lambda v: v.astype(jnp.float64), super().advance(graph, before, local))


class FirstOfMap(Fading):
    """Of a map with shared weights it sees the first entry."""

    def contract(self, graph, traces, entry, now=None):
        one = jax.tree.map(lambda v: v[:1], (traces, entry, now))
        return super().contract(graph, *one)


@dataclasses.dataclass(frozen=True)
class ByWindow(rules.PerParameter):
    """Its traces fade once a window, however long that is."""

    approximation = "its traces fade"

    def advance_and_contract(self, graph, before, local, signals, sums):
        after, sums = super().advance_and_contract(graph, before, local, signals, sums)
        return jax.tree.map(lambda v: 0.5 * v, after), sums

    def advance(self, graph, before, local):
        return jax.tree.map(lambda v: 0.5 * v, super().advance(graph, before, local))


WRONG = {
    Kept: "reset",
    Proud: "certificate",
    Signs: "linear",
    Mixed: "samples",
    Silent: "bytes",
    Twice: "bytes",
    Growing: "bytes",
    FirstOfMap: "vmap",
    ByWindow: "windows",
}


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.__name__)
def test_a_wrong_rule_breaks_its_law(wrong):
    others = [] if wrong is Growing else ["mask", "bytes", "certificate"]  # nothing else runs
    laws = [*others, WRONG[wrong]]
    report = checks.check_rule(algorithm(wrong()), ["leaky"], laws=laws, raises=False)
    assert [row.law for row in report.broken] == [WRONG[wrong]], report
    with pytest.raises(AssertionError, match=f"(?s)LAWS ARE BROKEN.*leaky: {WRONG[wrong]}: .+"):
        checks.check_rule(algorithm(wrong()), ["leaky"], laws=[WRONG[wrong]])


def test_a_trace_of_ones_own_keeps_the_laws():
    """The sound one that the wrong ones are made of; and one that is D-RTRL."""
    report = checks.check_rule(algorithm(Fading()), ["alif"])
    assert report.ok and not report.refused
    example = checks.default_cells()["alif"]

    class Same(rules.StepTrace):
        def moved(self, old, carried, added):
            return carried + added

    trials = [
        Trial.of(rule, example, {}, None)
        for rule in (algorithm(Same()), "d_rtrl", algorithm(Fading()))
    ]
    own, right, other = (trial.gradient(trial.given) for trial in trials)
    same, control = (trials[0].compared(one, right) for one in (own, other))
    assert all(map(same.equal, same.rows))
    assert not all(map(control.equal, control.rows))


def test_an_algorithm_with_its_options_and_cells_of_ones_own():
    cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    given = jnp.ones((2, 3)), jnp.zeros((2, 3)), jnp.ones((4, 2, 2)).at[0].set(0.3)
    cells = {"mine": checks.CellExample(cell, *given)}
    rule = rules.PPPropRule(decay_or_rank=0.5)
    report = checks.check_rule(rule, cells, laws=["bytes", "linear"])
    assert [row.cell for row in report.rows] == ["mine", "mine"]
    with pytest.raises(braintrace.UsageError, match="has its options already"):
        checks.check_rule(rule, cells, decay_or_rank=0.9)


def test_refusals_are_told_and_do_not_hide_that_nothing_was_checked():
    """Random feedback needs a readout with a weight."""
    cell = lambda w, h, x: ((h := 0.5 * h + x @ w), h)
    given = jnp.ones((2, 3)), jnp.zeros((2, 3)), jnp.ones((4, 2, 2))
    cells = {
        "no readout": checks.CellExample(cell, *given),
        "leaky": checks.default_cells()["leaky"],
    }
    options = {"random_feedback_key": 0, "laws": ["bytes"]}
    report = checks.check_rule("rflo", cells, **options)
    assert report.ok and [row.cell for row in report.refused] == ["no readout"]
    assert "No readout that a feedback weight could replace" in str(report)
    with pytest.raises(AssertionError, match="NOTHING WAS CHECKED"):
        checks.check_rule("rflo", {"no readout": cells["no readout"]}, **options)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rule": "d_rtl"}, "Unknown algorithm"),
        ({"rule": "pp_prop"}, "Invalid decay_or_rank"),
        ({"cells": ["lief"]}, "Invalid cells"),
        ({"cells": {"mine": 3}}, "Invalid cell 'mine'"),
        ({"laws": ["lows"]}, "Invalid laws"),
        ({"laws": []}, "Invalid laws"),
        ({"tolerance": -1.0}, "Invalid tolerance"),
        ({"raises": "no"}, "raises"),
    ],
)
def test_wrong_arguments(given, words):
    with pytest.raises(braintrace.UsageError, match=words):
        checks.check_rule(given.pop("rule", "d_rtrl"), **given)


def test_an_example_is_long_enough():
    with pytest.raises(braintrace.UsageError, match="too short"):
        checks.CellExample(lambda p, h, x: (h, x), 1.0, jnp.zeros(1), jnp.zeros((3, 1)))


def test_a_rule_that_is_put_together_wrongly_is_told():
    class Wide(Fading):
        def moved(self, old, carried, added):
            return added[0]

    class Nothing(rules.Algorithm):
        name = "Nothing"

        def parts(self):
            return Fading()

    with pytest.raises(AssertionError, match=r"Wide\.moved changes the shape of the trace"):
        checks.check_rule(algorithm(Wide()), ["leaky"], laws=["mask"])
    with pytest.raises(braintrace.UsageError, match="The parts of Nothing are no rule"):
        checks.check_rule(Nothing, ["leaky"], laws=["mask"])
