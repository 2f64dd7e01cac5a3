"""Which parameters are trained, and which are kept out of the traces: patterns over paths, and
predicates.
"""

import fnmatch
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from ..core._errors import UsageError

Pattern = str | Callable[[str, Any], bool]
Patterns = Pattern | Sequence[Pattern] | None


def select(
    names: Sequence[str],
    leaves: Sequence[jax.ShapeDtypeStruct],
    trainable: Patterns,
    exclude: Patterns,
) -> tuple[frozenset[int], frozenset[int]]:
    """What `trainable` and `exclude` mean for the parameters called `names`: the numbers of those
    that are not trained, and of those that no trace is kept of.
    """

    def matching(option: str, patterns: Any) -> frozenset[int]:
        several = patterns if isinstance(patterns, (list, tuple, set, frozenset)) else [patterns]
        if not several:
            raise UsageError(
                f"Invalid {option}.", got=repr(patterns), expected="at least one pattern, or None"
            )
        found: set[int] = set()
        for pattern in several:
            if not isinstance(pattern, str) and not callable(pattern):
                raise UsageError(
                    f"Invalid {option}.",
                    got=repr(pattern),
                    expected="a glob such as 'cell.*', a predicate (path, leaf) -> bool, or a list "
                    "of these",
                )
            matched = {k for k in every if _match(pattern, names[k], leaves[k])}
            if not matched:
                raise UsageError(
                    f"{option} matches no parameter.",
                    got=repr(pattern),
                    expected=f"some of {[dotted(n) for n in names]}",
                    do="'*' stands for anything; a path stands for all that is below it, too",
                )
            found |= matched
        return frozenset(found)

    every = frozenset(range(len(names)))
    wanted = every if trainable is None else matching("trainable", trainable)
    untraced = frozenset() if exclude is None else matching("exclude", exclude)
    return every - wanted, untraced & wanted


def dotted(name: str) -> str:
    """A path as patterns see it: `layers[0].weight` and `['layers'][0].weight` as
    `layers.0.weight`.
    """
    return re.sub(r"\[['\"]?(.*?)['\"]?\]", r".\1", name).strip(".")


def _match(pattern: Any, name: str, leaf: Any) -> bool:
    path = dotted(name)
    if not isinstance(pattern, str):
        return bool(pattern(path, leaf))
    globs = pattern, f"{pattern}.*"
    return name == pattern or any(fnmatch.fnmatchcase(path, glob) for glob in globs)
