"""All cases, and the table of their outcomes."""

import collections
from collections.abc import Iterator

from ._drivers import driver_cases
from ._options import option_cases
from ._others import other_cases
from ._outcomes import Case, Outcome


def all_cases() -> Iterator[Case]:
    yield from driver_cases()
    yield from option_cases()
    yield from other_cases()


def table(outcomes: list[tuple[Case, Outcome, str]]) -> str:
    """How many calls had each outcome."""
    counted = collections.Counter(outcome for _, outcome, _ in outcomes)
    lines = [f"{outcome:8} {counted[outcome]:5}" for outcome in Outcome]
    return "\n".join([*lines, f"{'calls':8} {len(outcomes):5}"])
