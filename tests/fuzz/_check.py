"""What must hold of the cell of a seed."""

import functools

import numpy as np

from zoo._algorithms import by_sequence, by_step
from zoo._case import EXACT
from zoo._interpret import run_once
from zoo._reference import bptt
from zoo.algorithms import ALGORITHMS

from ._cells import example

RULES = ("d_rtrl", "pp_prop", "ostl_recurrent")
SAME = 1e-10
#: A gradient below this is zero but for rounding, and says nothing about a certificate.
DEAD = 1e-9


class Modest(AssertionError):
    """Nothing is wrong, but a gradient that is BPTT's is not called exact."""


def learner_of(rule, case, cell, given):
    """A learner of a case; `cell` takes all the marks, for engines that are broken on purpose."""
    return ALGORITHMS[rule].learner(case, *given[:2], given[2][0])


def gradients_of(rule, learner, given):
    """By way; step by step for one rule, whose way it is for all."""
    ways = {f"window of {size}": by_sequence(learner, given, size) for size in (1, 3, None)}
    if rule == "d_rtrl":
        ways["step by step"] = by_step(learner, given)
    return {way: gradient(*given) for way, gradient in ways.items()}


def distances(a, b):
    """Relative distance of each gradient; of a dead one the absolute distance."""
    sizes = {name: np.linalg.norm(v) for name, v in b.items()}
    return {
        name: float(np.linalg.norm(a[name] - b[name]) / (size if size > DEAD else 1))
        for name, size in sizes.items()
    }


def assert_same(a, b, what):
    off = {name: d for name, d in distances(a, b).items() if not d < SAME}
    assert not off, f"{what}: {off}"


def check_certificate(certificate, gradient, truth, what):
    """What is called exact is BPTT's; what is BPTT's and not called exact is returned."""
    modest = []
    for name, off in distances(gradient, truth).items():
        if certificate[name] == EXACT:
            assert off < SAME, f"{what}: {name} is called exact and is {off:.1e} from BPTT"
        elif off < SAME and np.linalg.norm(truth[name]) > DEAD:
            modest.append(f"{what}: {name} is called {certificate[name]}")
    return modest


def check(seed, rules=RULES, make_learner=learner_of):
    """Raises AssertionError where a gradient or a certificate of a seed's cell is wrong, and
    `Modest` where a certificate could be better.
    """
    case, cell, given = example(seed)
    data, modest = given[:4], []
    truth = run_once(functools.partial(bptt, case.cell), *data)
    for rule in rules:
        learner = make_learner(rule, case, cell, given)
        ways = gradients_of(rule, learner, given)
        first = ways["window of 1"]
        for way, gradient in ways.items():
            assert_same(gradient, first, f"{rule}, {way} against window of 1")
        if rule == "d_rtrl":
            oracle = run_once(functools.partial(bptt, case.oracle), *data)
            assert_same(first, oracle, f"{rule} against its oracle")
        certificate = {row.path[2:-2]: str(row.exactness) for row in learner.graph.parameters}
        modest += check_certificate(certificate, first, truth, rule)
    if modest:
        raise Modest("; ".join(modest))
