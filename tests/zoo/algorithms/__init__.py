"""What the matrix runs: a module for each family of algorithms, which says what it refuses.

Each has `ALGORITHMS`, and may have `REFUSED`: the cases that an algorithm refuses, and a piece of
what it says, {algorithm: {words: cases}}; `DRAWN`: pairs whose twin has other random numbers;
`MODEST`: parameters that get BPTT's gradient although the certificate does not promise it,
{algorithm: {case: parameters}}.
"""

import importlib
import pkgutil

_FAMILIES = [
    importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__)
]


def _of_all(name):
    return {k: v for family in _FAMILIES for k, v in getattr(family, name, {}).items()}


ALGORITHMS, REFUSED, MODEST = map(_of_all, ("ALGORITHMS", "REFUSED", "MODEST"))
DRAWN = {pair for family in _FAMILIES for pair in getattr(family, "DRAWN", ())}
