"""Learners in files and in other processes: what a learner was made of is pickled, and the learner
is compiled again where that is read.
"""

import importlib
import io
import pickle
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..core._errors import UsageError

#: For kinds of objects that cannot be pickled, (function, arguments) that make one again.
Reducers = Mapping[type, Callable[[Any], tuple[Callable[..., Any], tuple[Any, ...]]]]

L = TypeVar("L")


class _Pickler(pickle.Pickler):
    """Pickles what frameworks do not: jitted functions (`jax.nn.relu`) and classes by the place
    where they can be imported, which need not be the one that they name; and what `reducers` knows.
    """

    def __init__(self, file: io.BytesIO, reducers: Reducers):
        super().__init__(file)
        self._reducers = reducers

    def reducer_override(self, obj: Any) -> Any:
        for kind, reduce in self._reducers.items():
            if isinstance(obj, kind):
                return reduce(obj)
        module, name = getattr(obj, "__module__", None), getattr(obj, "__qualname__", None)
        if not callable(obj) or not isinstance(module, str) or not isinstance(name, str):
            return NotImplemented
        is_at = lambda place: getattr(sys.modules.get(place), name, None) is obj
        if is_at(module):
            return name
        package = module.partition(".")[0]
        others = (m for m in list(sys.modules) if m.partition(".")[0] == package and is_at(m))
        place = next(others, None)
        return NotImplemented if place is None else (_imported, (place, name))


def packed(make: Callable[[], Any], reducers: Reducers | None = None) -> Any:
    """What `__reduce__` returns for a learner that `make()` makes again.

    Raises:
        UsageError: for a part of it that cannot be pickled: a lambda, say.
    """
    file = io.BytesIO()
    try:
        _Pickler(file, reducers or {}).dump(make)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            "The learner cannot be pickled.",
            got=str(error),
            expected="a model, and options, of functions and classes that can be imported",
            do="define them with def and class at the top level of a module",
        ) from error
    return _made, (file.getvalue(),)


def shallow_copy(learner: L) -> L:
    """`copy.copy`, which would make the learner again with `__reduce__`."""
    copied = object.__new__(type(learner))
    vars(copied).update(vars(learner))
    return copied


def _made(pickled: bytes) -> Any:
    return pickle.loads(pickled)()


def _imported(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)
