"""The cases of all that is public beside learners and their options."""

from collections.abc import Iterator

from . import _bad_values as values
from ._of_checks import calls_of_checks
from ._of_compat import calls_of_compat
from ._of_estimates import calls_of_estimates
from ._of_layers import calls_of_layers
from ._of_operators import calls_of_operators
from ._of_tasks import calls_of_tasks
from ._options import plain
from ._outcomes import Case


def other_cases() -> Iterator[Case]:
    checks, operators, layers = calls_of_checks(), calls_of_operators(), calls_of_layers()
    calls = (*checks, *operators, *layers, *calls_of_tasks(), *calls_of_compat())
    calls = (*calls, *calls_of_estimates())
    for name, call, arguments in calls:
        valid, kinds = arguments
        for argument, kind in kinds.items():
            for label, value in kind.items():
                given = {**valid, argument: plain(value)}
                refusal = value.refusal if isinstance(value, values.Refused) else None
                called = lambda c=call, g=given: c(**g)
                yield Case(f"{name}, {argument}: {label}", called, refuses=refusal)
