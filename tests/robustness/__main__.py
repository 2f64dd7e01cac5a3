"""`python -m robustness`: every bad call, those with a fault, and the table of outcomes."""

import quick_compilation  # isort: skip  # noqa: F401  (first: JAX reads its settings)

import argparse
import sys

from ._table import all_cases, table


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-k", default="", help="the cases whose name holds this")
    parser.add_argument("-v", action="store_true", help="the text of every error")
    chosen = parser.parse_args()
    outcomes = [(case, *case.run()) for case in all_cases() if chosen.k in case.name]
    for case, outcome, text in outcomes:
        if chosen.v or outcome != case.expected:
            print(f"{outcome}: {case.name}\n    " + "\n    ".join(text.splitlines()[:6]))
    print(table(outcomes))
    return any(outcome != case.expected for case, outcome, _ in outcomes)


if __name__ == "__main__":
    sys.exit(main())
