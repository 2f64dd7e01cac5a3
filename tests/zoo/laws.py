"""The laws of rules (`braintrace.checks.check_rule`) on algorithms and cases of the zoo:

PYTHONPATH=tests python -m zoo.laws               # every algorithm on every case: hours
PYTHONPATH=tests python -m zoo.laws uoro lif gru  # these algorithms, these cases
PYTHONPATH=tests python -m zoo.laws --quick uoro  # what the matrix does not ask
PYTHONPATH=tests python -m zoo.laws --every=10    # every tenth pair
"""

import quick_compilation  # isort: skip  (first: JAX reads its settings when it is imported)

import sys
import time

import jax

from braintrace import checks
from braintrace.checks._rule_report import LAWS

from . import CASES, tolerance
from .algorithms import ALGORITHMS, REFUSED

T, KEY = 6, 7
#: The others are those of the matrix.
QUICK = ("samples", "linear", "mask", "draws", "vmap", "bytes")
REFUSALS = {
    (algorithm, case)
    for algorithm, kinds in REFUSED.items()
    for cases in kinds.values()
    for case in cases.split()
}


def example(case):
    """A case with its data, as `check_rule` takes it."""
    params, carry, xs, _ = case.make(jax.random.key(KEY), T, case.B)
    return checks.CellExample(case.cell, params, carry, xs, case.compiled)


def laws_of(case, algorithm, among=tuple(LAWS)):
    """The laws that there are where samples meet, or a reset is no new sequence."""
    linear = ALGORITHMS[algorithm].linear
    there = {"samples": case.apart and linear, "reset": case.restarts}
    return [law for law in among if there.get(law, True)]


def checked(algorithm, name, among=tuple(LAWS)):
    """The report of one algorithm on one case."""
    case, chosen = CASES[name], ALGORITHMS[algorithm]
    laws = laws_of(case, algorithm, among)
    given = {"laws": laws, "tolerance": max(1e-8, tolerance(case)), "raises": False}
    return checks.check_rule(chosen.name, {name: example(case)}, **given, **chosen.options)


def main(words):
    """Print what is not kept, and how many pairs there are of each kind; the number of broken
    laws.
    """
    among = QUICK if "--quick" in words else tuple(LAWS)
    every = next((int(w[8:]) for w in words if w.startswith("--every=")), 1)
    algorithms = [w for w in words if w in ALGORITHMS] or list(ALGORITHMS)
    cases = [w for w in words if w in CASES] or list(CASES)
    pairs = [(a, c) for a in algorithms for c in cases][::every]
    kept, refused, broken, start = 0, 0, 0, time.time()
    for k, (algorithm, name) in enumerate(pairs):
        report = checked(algorithm, name, among)
        all_refused = len(report.refused) == len(report.rows)
        unasked = all_refused and (algorithm, name) not in REFUSALS
        kept, refused = kept + (report.ok and not all_refused), refused + all_refused
        broken += len(report.broken) + unasked
        if report.broken or unasked:
            print(f"{algorithm} on {name}\n{report}", flush=True)
        if k % 50 == 49:
            jax.clear_caches()
    took = time.time() - start
    print(f"{len(pairs)} pairs: {kept} keep {len(among)} laws, {refused} refuse; {took:.0f} s")
    return broken


if __name__ == "__main__":
    quick_compilation.collect_seldom()
    jax.config.update("jax_enable_x64", True)
    sys.exit(bool(main(sys.argv[1:])))
