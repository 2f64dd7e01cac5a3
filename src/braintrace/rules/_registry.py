"""The algorithms by name, and the one reader of what `compile` is given for one."""

import difflib
from collections.abc import Callable
from typing import TypeVar

from ..compat import ETraceConfig
from ..core._errors import UsageError
from ._algorithm import Algorithm

#: Algorithms by name, in small letters.
ALGORITHMS: dict[str, type[Algorithm]] = {}

A = TypeVar("A", bound=type[Algorithm])


def register_algorithm(*names: str) -> Callable[[A], A]:
    """A decorator of an algorithm's class: `compile` knows it by these names, in any case.

    Raises:
        UsageError: without a name, for a name that another algorithm has, or for what is not a
            subclass of `Algorithm`. The same class defined again (in a notebook) takes its place.

    >>> import dataclasses
    >>> from braintrace import rules
    >>> @rules.register_algorithm("forgetful")
    ... @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Forgetful(rules.Algorithm):
    ...     name = "Forgetful"
    ...     def parts(self):
    ...         return rules.Rule("forgetful", rules.Presynaptic((0.0,)))
    """
    keys = [name.lower().replace("-", "_") for name in names]
    if not keys:
        raise UsageError(
            "An algorithm needs a name.",
            got="register_algorithm()",
            expected="one name or several",
            do='@register_algorithm("my_rule")',
        )

    def register(algorithm: A) -> A:
        if not (isinstance(algorithm, type) and issubclass(algorithm, Algorithm)):
            raise UsageError(
                f"{names[0]!r} cannot be registered.",
                got=repr(algorithm),
                expected="a subclass of braintrace.rules.Algorithm",
            )
        identity = lambda a: (a.__module__, a.__qualname__)
        for name, key in zip(names, keys, strict=True):
            known = ALGORITHMS.get(key, algorithm)
            if identity(known) != identity(algorithm):
                raise UsageError(
                    f"There is an algorithm {name!r} already.",
                    got=f"{algorithm.__qualname__}, registered by the same name",
                    expected=f"a name that {known.__qualname__} has not",
                    do="choose another name",
                )
        ALGORITHMS.update(dict.fromkeys(keys, algorithm))
        return algorithm

    return register


def algorithm_of(given: object) -> type[Algorithm]:
    """The algorithm that a name in any case, a class made of it, or coordinates stand for."""
    if isinstance(given, ETraceConfig):
        given = "pp_prop" if given.is_factorized else "d_rtrl"
    if isinstance(given, str):
        found = ALGORITHMS.get(given.lower().replace("-", "_"))
    else:
        found = getattr(given, "algorithm", given) if isinstance(given, type) else None
    if isinstance(found, type) and issubclass(found, Algorithm):
        return found
    near = difflib.get_close_matches(given.lower(), ALGORITHMS, 1) if isinstance(given, str) else ()
    raise UsageError(
        "Unknown algorithm.",
        got=repr(given) if isinstance(given, str | type) else f"a {type(given).__name__}",
        expected=f"one of {', '.join(ALGORITHMS)}, or an algorithm's class",
        do=f"pass {near[0]!r}, which is the nearest"
        if near
        else "pass one of these names (case does not matter), or a class such as braintrace.D_RTRL",
    )
